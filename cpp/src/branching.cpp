#include "reluflow/branching.hpp"

#include <algorithm>
#include <cmath>
#include <queue>
#include <utility>

namespace reluflow {
namespace {

constexpr int kChordRounds = 4;
// A node's own piece may lie so much further away than the best point known and still be projected
// onto exactly.
constexpr double kProjected = 1.5;
constexpr Index kNone = -1;

struct Node {
  Index number;
  double lower_bound;
  Intervals intervals;
  Vector likely;  // pre-activations whose signs are the first guess for the undecided neurons
};

struct HigherBound {
  bool operator()(const Node& left, const Node& right) const {
    return left.lower_bound > right.lower_bound;
  }
};

class BranchAndBound {
 public:
  BranchAndBound(const PointProblem& problem, double radius, const BranchingOptions& options,
                 const Incumbent& incumbent, ProofTrail& trail)
      : problem_(problem),
        options_(options),
        incumbent_(incumbent),
        trail_(trail),
        radius_(radius),
        closed_(radius) {}

  BranchingResult run(Intervals intervals, const Vector& likely) {
    open_.push({0, 0.0, std::move(intervals), likely});
    while (!open_.empty() && lower_bound() < enough() && nodes_ < options_.max_nodes &&
           !options_.stop()) {
      Node node = open_.top();
      open_.pop();
      ++nodes_;
      process(node);
    }
    return {std::min(radius_, lower_bound()), nodes_};
  }

 private:
  double enough() const { return (1.0 - options_.rtol) * radius_; }

  double lower_bound() const {
    return open_.empty() ? closed_ : std::min(closed_, open_.top().lower_bound);
  }

  void process(Node& node) {
    trail_.enter(node.number, radius_);
    Index neuron = bound_by_chords(node);
    if (node.lower_bound < enough()) neuron = bound_by_minorants(node, neuron);
    if (node.lower_bound >= enough()) return close(node);
    if (neuron == kNone || !node.intervals.undecided(neuron)) neuron = first_undecided(node);
    if (neuron == kNone) return close_leaf(node);
    Node inactive = node;
    inactive.number = trail_.branch(neuron);
    node.number = inactive.number + 1;
    inactive.intervals.high[neuron] = 0.0;
    node.intervals.low[neuron] = 0.0;
    open_.push(std::move(node));
    open_.push(std::move(inactive));
  }

  /// Returns the neuron to branch on.
  Index bound_by_chords(Node& node) {
    const Relaxation relaxation =
        tighten(problem_, radius_, enough(), options_.slack, kChordRounds, node.intervals, trail_);
    node.lower_bound = std::max(node.lower_bound, relaxation.lower_bound);
    if (relaxation.projection.preactivations.size() > 0) {
      node.likely = relaxation.projection.preactivations;
    }
    return widest_gap(node);
  }

  /// The same, around the projection onto the piece that is likely to be the best of the node.
  Index bound_by_minorants(Node& node, Index neuron) {
    const Subset subset = likely_subset(node);
    ProjectionOptions within;
    within.stop_above = kProjected * radius_;
    const Projection projection = project(problem_, piece_of(problem_, subset), within);
    if (projection.distance < radius_) {
      radius_ = std::min(radius_, incumbent_(subset));
      trail_.enter(node.number, radius_);
    }
    if (projection.scale <= 0.0) return neuron;
    const DualBound bound =
        dual_bound(problem_, projection, radius_, enough(), options_.slack, node.intervals, trail_);
    node.lower_bound = std::max(node.lower_bound, bound.lower_bound);
    return bound.widest_gap == kNone ? neuron : bound.widest_gap;
  }

  Subset likely_subset(const Node& node) const {
    Subset subset = active_subset(problem_, node.likely);
    for (const Index j : problem_.side.opposing) {
      if (!node.intervals.undecided(j)) {
        subset[static_cast<std::size_t>(j)] = node.intervals.high[j] > 0.0;
      }
    }
    return subset;
  }

  Index first_undecided(const Node& node) const {
    for (const Index j : problem_.side.opposing) {
      if (node.intervals.undecided(j)) return j;
    }
    return kNone;
  }

  void close(const Node& node) { closed_ = std::min(closed_, node.lower_bound); }

  /// All signs are decided: the node is one convex piece, and what is nearest on it flips.
  void close_leaf(Node& node) {
    if (node.intervals.contradictory()) return;
    Subset active(static_cast<std::size_t>(problem_.neurons.size()), 0);
    bool opposed = false;
    for (const Index j : problem_.side.opposing) {
      if (node.intervals.high[j] <= 0.0) continue;
      active[static_cast<std::size_t>(j)] = 1;
      opposed = true;
    }
    if (options_.strict && !opposed && problem_.constant >= 0.0) return;
    const ConvexPiece piece = piece_of(problem_, active);
    ProjectionOptions within;
    within.stop_above = radius_;
    const Projection projection = project(problem_, piece, within);
    node.lower_bound =
        std::max(node.lower_bound,
                 verified_lower_bound(problem_, piece, projection.multipliers, options_.slack));
    trail_.plane(projection.multipliers);
    if (node.lower_bound < enough()) radius_ = std::min(radius_, incumbent_(active));
    close(node);
  }

  /// The undecided opposing neuron whose chord is furthest from it at the likely solution.
  Index widest_gap(const Node& node) const {
    Index widest = kNone;
    double largest = -1.0;
    for (const Index j : problem_.side.opposing) {
      if (!node.intervals.undecided(j)) continue;
      const double low = node.intervals.low[j], high = node.intervals.high[j];
      const double z = std::clamp(node.likely[j], low, high);
      const double gap =
          -problem_.side.output[j] * (high * (z - low) / (high - low) - std::max(z, 0.0));
      if (gap > largest) {
        largest = gap;
        widest = j;
      }
    }
    return widest;
  }

  const PointProblem& problem_;
  const BranchingOptions& options_;
  const Incumbent& incumbent_;
  ProofTrail& trail_;
  double radius_;
  double closed_;  // the least bound of the nodes that need no more work
  Index nodes_ = 0;
  std::priority_queue<Node, std::vector<Node>, HigherBound> open_;
};

}  // namespace

BranchingResult branch(const PointProblem& problem, Intervals intervals, const Vector& likely,
                       double radius, const BranchingOptions& options, const Incumbent& incumbent,
                       ProofTrail& trail) {
  return BranchAndBound(problem, radius, options, incumbent, trail)
      .run(std::move(intervals), likely);
}

}  // namespace reluflow
