#pragma once

#include <functional>

#include "reluflow/certificate.hpp"

namespace reluflow {

struct BranchingOptions {
  double rtol = 1e-6;
  double slack = 0.0;
  Index max_nodes = 100;
  bool strict = false;  ///< pieces without an active opposing neuron never flip the point
  std::function<bool()> stop = [] { return false; };
};

/// Offers a subset whose piece may lie nearer than the best point known; returns the radius of the
/// best point known afterwards.
using Incumbent = std::function<double(const Subset&)>;

struct BranchingResult {
  double lower_bound;
  Index nodes;
};

/// Best-first branch and bound over the signs of the undecided opposing neurons, bounded by chords
/// and by convex minorants. Starts from `intervals`, which hold for flipping points shorter than
/// `radius`, with the signs of `likely` as first guess; ends when the lower bound reaches (1 -
/// rtol) of the radius or a budget is used up, and is valid either way. The tree goes onto the
/// trail.
BranchingResult branch(const PointProblem& problem, Intervals intervals, const Vector& likely,
                       double radius, const BranchingOptions& options, const Incumbent& incumbent,
                       ProofTrail& trail);

}  // namespace reluflow
