#pragma once

#include <functional>
#include <queue>
#include <vector>

#include "reluflow/certificate.hpp"

namespace reluflow {

struct BranchingOptions {
  double rtol = 1e-6;
  double slack = 0.0;
  bool strict = false;  ///< pieces without an active opposing neuron never flip the point
};

/// What is known where the tree starts: intervals that hold for flipping points shorter than
/// `radius`, pre-activations whose signs are the first guess for the undecided neurons, and
/// multipliers of the best minorant.
struct BranchingRoot {
  double radius;
  Intervals intervals;
  Vector likely;
  ShorMultipliers multipliers;
};

/// Offers a subset whose piece may lie nearer than the best point known; returns the radius of the
/// best point known afterwards.
using Incumbent = std::function<double(const Subset&)>;

/// Best-first branch and bound over the signs of the undecided opposing neurons, bounded by chords
/// and by convex minorants. Its lower bound is valid at any time. The tree goes onto the trail.
///
/// A few of the best nodes are looked at together, each by itself, and what they found is taken
/// over in their order: the tree does not depend on the number of threads that share them.
class BranchAndBound {
 public:
  BranchAndBound(const PointProblem& problem, BranchingRoot root, const BranchingOptions& options,
                 Incumbent incumbent, ProofTrail& trail);

  /// Goes on until the lower bound reaches (1 - rtol) of the radius, `max_nodes` nodes were looked
  /// at in all, or `stop`, which any thread may ask, says so.
  void run(Index max_nodes, int num_threads, const std::function<bool()>& stop);

  double lower_bound() const;
  Index nodes() const { return nodes_; }
  bool finished() const { return open_.empty() || open_.top().lower_bound >= enough(); }

 private:
  struct Node {
    Index number;
    double lower_bound;
    Intervals intervals;
    Vector likely;
    ShorMultipliers multipliers;
  };
  struct HigherBound {
    bool operator()(const Node& left, const Node& right) const {
      return left.lower_bound > right.lower_bound ||
             (left.lower_bound == right.lower_bound && left.number > right.number);
    }
  };
  /// What became of a node.
  struct Findings {
    enum class End { branch, closed, impossible, abandoned } end = End::abandoned;
    Index neuron = -1;               // to branch on
    std::vector<Subset> candidates;  // whose pieces may hold a nearer point
    ProofTrail trail;
  };

  double enough() const { return (1.0 - options_.rtol) * radius_; }
  std::vector<Node> best_nodes(Index most);
  Findings look_at(Node& node, const std::function<bool()>& stop) const;
  Index bound_by_chords(Node& node, Findings& findings) const;
  Index bound_by_minorants(Node& node, Index neuron, Findings& findings) const;
  void bound_leaf(Node& node, Findings& findings) const;
  void take_over(Node node, const Findings& findings);
  Subset likely_subset(const Node& node) const;
  Index first_undecided(const Node& node) const;
  Index widest_gap(const Node& node) const;

  const PointProblem& problem_;
  BranchingOptions options_;
  Incumbent incumbent_;
  ProofTrail& trail_;
  double radius_;
  double closed_;  // the least bound of the nodes that need no more work
  Index nodes_ = 0;
  std::priority_queue<Node, std::vector<Node>, HigherBound> open_;
};

}  // namespace reluflow
