#pragma once

#include "reluflow/shor_ascent.hpp"

namespace reluflow {

/// The lower bound that the closed-form multipliers of a projection prove: its distance, where the
/// minorant is convex (docs/theory.md, section 7.5).
/// Where it is above `known`, it goes onto the trail.
double closed_form_bound(const PointProblem& problem, const Intervals& intervals,
                         const Projection& projection, double slack, double known,
                         ProofTrail& trail);

struct DualBound {
  double lower_bound = 0.0;
  Index widest_gap = -1;                     ///< the neuron to branch on, -1 when none is undecided
  ShorMultipliers multipliers{0.0, {}, {}};  ///< of the best minorant, to start from nearby
};

/// Lower bounds for points shorter than `radius` within the intervals, from minorants: the closed
/// form around a projection, and better multipliers that an ascent finds from there or from
/// `start`, where there is one. Each minorant cuts the intervals down to those of an ellipsoid,
/// which makes the next one tighter; goes on while that helps and the bound is below `enough`.
/// What bounds or cuts goes onto the trail.
DualBound dual_bound(const PointProblem& problem, const Projection& projection,
                     const ShorMultipliers* start, double radius, double enough, double slack,
                     Intervals& intervals, ProofTrail& trail);

}  // namespace reluflow
