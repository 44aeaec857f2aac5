#include "reluflow/branching.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "reluflow/parallel.hpp"

namespace reluflow {
namespace {

constexpr int kChordRounds = 4;
// Nodes that are looked at together. The answer depends on it, on the number of threads it must
// not.
constexpr Index kTogether = 8;
// A node's own piece may lie so much further away than the best point known and still be projected
// onto exactly.
constexpr double kProjected = 1.5;
constexpr Index kNone = -1;

}  // namespace

BranchAndBound::BranchAndBound(const PointProblem& problem, BranchingRoot root,
                               const BranchingOptions& options, Incumbent incumbent,
                               ProofTrail& trail)
    : problem_(problem),
      options_(options),
      incumbent_(std::move(incumbent)),
      trail_(trail),
      radius_(root.radius),
      closed_(root.radius) {
  open_.push(
      {0, 0.0, std::move(root.intervals), std::move(root.likely), std::move(root.multipliers)});
}

double BranchAndBound::lower_bound() const {
  const double open = open_.empty() ? closed_ : std::min(closed_, open_.top().lower_bound);
  return std::min(radius_, open);
}

void BranchAndBound::run(Index max_nodes, int num_threads, const std::function<bool()>& stop) {
  while (!finished() && nodes_ < max_nodes && !stop()) {
    std::vector<Node> nodes = best_nodes(std::min(kTogether, max_nodes - nodes_));
    std::vector<Findings> findings(nodes.size());
    parallel_for(static_cast<Index>(nodes.size()), num_threads, nullptr, [&](Index i) {
      const auto at = static_cast<std::size_t>(i);
      findings[at] = look_at(nodes[at], stop);
    });
    for (std::size_t i = 0; i < nodes.size(); ++i) take_over(std::move(nodes[i]), findings[i]);
  }
}

/// Takes the best nodes that are not bounded enough off the queue.
std::vector<BranchAndBound::Node> BranchAndBound::best_nodes(Index most) {
  std::vector<Node> nodes;
  while (!open_.empty() && static_cast<Index>(nodes.size()) < most &&
         open_.top().lower_bound < enough()) {
    nodes.push_back(open_.top());
    open_.pop();
  }
  return nodes;
}

BranchAndBound::Findings BranchAndBound::look_at(Node& node,
                                                 const std::function<bool()>& stop) const {
  Findings findings;
  findings.trail = ProofTrail(trail_.wanted());
  findings.trail.enter(node.number, radius_);
  if (stop()) return findings;
  findings.neuron = bound_by_chords(node, findings);
  if (node.lower_bound < enough()) {
    if (stop()) return findings;
    findings.neuron = bound_by_minorants(node, findings.neuron, findings);
  }
  if (node.lower_bound >= enough()) {
    findings.end = Findings::End::closed;
    return findings;
  }
  if (findings.neuron == kNone || !node.intervals.undecided(findings.neuron)) {
    findings.neuron = first_undecided(node);
  }
  findings.end = Findings::End::branch;
  if (findings.neuron == kNone) bound_leaf(node, findings);
  return findings;
}

void BranchAndBound::take_over(Node node, const Findings& findings) {
  using End = Findings::End;
  trail_.append(findings.trail);
  for (const Subset& subset : findings.candidates) {
    radius_ = std::min(radius_, incumbent_(subset));
  }
  if (findings.end == End::abandoned) return open_.push(std::move(node));
  ++nodes_;
  if (findings.end == End::closed) closed_ = std::min(closed_, node.lower_bound);
  if (findings.end != End::branch) return;
  trail_.enter(node.number, radius_);
  Node inactive = node;
  inactive.number = trail_.branch(findings.neuron);
  node.number = inactive.number + 1;
  inactive.intervals.high[findings.neuron] = 0.0;
  node.intervals.low[findings.neuron] = 0.0;
  open_.push(std::move(node));
  open_.push(std::move(inactive));
}

/// Returns the neuron to branch on.
Index BranchAndBound::bound_by_chords(Node& node, Findings& findings) const {
  const Relaxation relaxation = tighten(problem_, radius_, enough(), options_.slack, kChordRounds,
                                        node.intervals, findings.trail);
  node.lower_bound = std::max(node.lower_bound, relaxation.lower_bound);
  if (relaxation.projection.preactivations.size() > 0) {
    node.likely = relaxation.projection.preactivations;
  }
  return widest_gap(node);
}

/// The same, around the projection onto the piece that is likely to be the best of the node.
Index BranchAndBound::bound_by_minorants(Node& node, Index neuron, Findings& findings) const {
  const Subset subset = likely_subset(node);
  ProjectionOptions within;
  within.stop_above = kProjected * radius_;
  const Projection projection = project(problem_, piece_of(problem_, subset), within);
  if (projection.distance < radius_) findings.candidates.push_back(subset);
  if (projection.scale <= 0.0) return neuron;
  const ShorMultipliers* start = node.multipliers.eta > 0.0 ? &node.multipliers : nullptr;
  DualBound bound = dual_bound(problem_, projection, start, radius_, enough(), options_.slack,
                               node.intervals, findings.trail);
  node.lower_bound = std::max(node.lower_bound, bound.lower_bound);
  if (bound.multipliers.eta > 0.0) node.multipliers = std::move(bound.multipliers);
  return bound.widest_gap == kNone ? neuron : bound.widest_gap;
}

Subset BranchAndBound::likely_subset(const Node& node) const {
  Subset subset = active_subset(problem_, node.likely);
  for (const Index j : problem_.side.opposing) {
    if (!node.intervals.undecided(j)) {
      subset[static_cast<std::size_t>(j)] = node.intervals.high[j] > 0.0;
    }
  }
  return subset;
}

Index BranchAndBound::first_undecided(const Node& node) const {
  for (const Index j : problem_.side.opposing) {
    if (node.intervals.undecided(j)) return j;
  }
  return kNone;
}

/// All signs are decided: the node is one convex piece, and what is nearest on it flips.
void BranchAndBound::bound_leaf(Node& node, Findings& findings) const {
  findings.end = Findings::End::impossible;
  if (node.intervals.contradictory()) return;
  Subset active(static_cast<std::size_t>(problem_.neurons.size()), 0);
  bool opposed = false;
  for (const Index j : problem_.side.opposing) {
    if (node.intervals.high[j] <= 0.0) continue;
    active[static_cast<std::size_t>(j)] = 1;
    opposed = true;
  }
  if (options_.strict && !opposed && problem_.constant >= 0.0) return;
  findings.end = Findings::End::closed;
  const ConvexPiece piece = piece_of(problem_, active);
  ProjectionOptions within;
  within.stop_above = radius_;
  const Projection projection = project(problem_, piece, within);
  node.lower_bound =
      std::max(node.lower_bound,
               verified_lower_bound(problem_, piece, projection.multipliers, options_.slack));
  findings.trail.plane(projection.multipliers);
  if (node.lower_bound < enough()) findings.candidates.push_back(active);
}

/// The undecided opposing neuron whose chord is furthest from it at the likely solution.
Index BranchAndBound::widest_gap(const Node& node) const {
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

}  // namespace reluflow
