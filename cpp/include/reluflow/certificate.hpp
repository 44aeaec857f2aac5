#pragma once

#include "reluflow/minorant.hpp"

namespace reluflow {

/// The lower bound that the closed-form multipliers of a projection prove: its distance, where the
/// minorant is convex (docs/theory.md, section 7.5).
/// Where it is above `known`, it goes onto the trail.
double closed_form_bound(const PointProblem& problem, const Intervals& intervals,
                         const Projection& projection, double slack, double known,
                         ProofTrail& trail);

struct DualBound {
  double lower_bound = 0.0;
  Index widest_gap = -1;  ///< the neuron to branch on, -1 when none is undecided
};

/// Lower bounds for points shorter than `radius` within the intervals, from minorants around a
/// projection: the closed form, with its curvatures lowered as far as convexity asks. Each minorant
/// cuts the intervals down to those of an ellipsoid, which decides signs and so makes the next one
/// tighter; goes on until none is decided or the bound is `enough`. What bounds or cuts goes onto
/// the trail.
DualBound dual_bound(const PointProblem& problem, const Projection& projection, double radius,
                     double enough, double slack, Intervals& intervals, ProofTrail& trail);

}  // namespace reluflow
