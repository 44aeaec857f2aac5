#pragma once

#include "reluflow/proof_trail.hpp"
#include "reluflow/subset_projection.hpp"

namespace reluflow {

/// What is known of the pre-activations at every u that flips the point and is shorter than some
/// radius: low <= z <= high.
struct Intervals {
  Vector low;
  Vector high;

  bool contradictory() const { return (low.array() > high.array()).any(); }
  bool undecided(Index neuron) const { return low[neuron] < 0.0 && high[neuron] > 0.0; }
};

/// How much wider an interval of a pre-activation is made, for u up to `radius`: far more than
/// rounding asks for, so that whoever follows the proof with another arithmetic finds every sign
/// decided that was decided here.
double interval_margin(const PointProblem& problem, Index neuron, double radius);

/// The intervals of the ball of that radius.
Intervals ball_intervals(const PointProblem& problem, double radius);

/// The radius up to which no neuron by itself can move far enough for N <= slack: the root in t of
/// the sum of output_j relu(a_j -+ t ||row_j||), each sign chosen against the point.
double neuronwise_lower_bound(const PointProblem& problem, double slack);

/// The convex piece below N that replaces -relu by its chord over the interval of each undecided
/// opposing neuron.
ConvexPiece chord_piece(const PointProblem& problem, const Intervals& intervals);

/// A lower bound that holds for every flipping u within the intervals and shorter than `radius`,
/// at most `radius`.
struct Relaxation {
  double lower_bound = 0.0;
  Projection projection;  ///< onto the chord piece
};

/// Bounds with the chord piece, cuts the intervals down to those of the cap that its plane leaves
/// of the ball, and repeats while that helps and the bound is below `enough`. The planes go onto
/// the trail.
Relaxation tighten(const PointProblem& problem, double radius, double enough, double slack,
                   int max_rounds, Intervals& intervals, ProofTrail& trail);

}  // namespace reluflow
