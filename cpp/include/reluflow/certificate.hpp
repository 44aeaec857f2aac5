#pragma once

#include "reluflow/perturbation_bounds.hpp"

namespace reluflow {

/// A point of the dual of min ||u||^2 subject to N(u) <= 0. For eta >= 0, 0 <= s_j <= eta output_j
/// and k_j > 0, and z = a + rows u,
///
///   ||u||^2 + eta N(u) >= ||u||^2 + eta constant + sum_supporting s_j z_j
///                         - sum_opposing (k_j z_j^2 + w_j z_j / 2 + w_j^2 / (16 k_j)),
///
/// with w_j = eta |output_j|, since relu(z) <= (z + c)^2 / (4 c) for every c > 0. Opposing neurons
/// whose sign is decided by the intervals enter exactly. Where the right side is convex, its
/// minimum bounds the squared radius from below. docs/theory.md, section 7.
struct ShorMultipliers {
  double eta;
  Vector supporting;  ///< s, (R); 0 at opposing neurons
  Vector curvature;   ///< k, (R); 0 at neurons other than undecided opposing ones
};

/// The multipliers for which the right side is stationary at the projection onto its piece, and
/// equals its squared distance there: k_j = w_j / (4 |z_j|).
ShorMultipliers closed_form_multipliers(const PointProblem& problem, const Intervals& intervals,
                                        const Projection& projection);

/// The lower bound on the radius that `multipliers` prove, with every rounding error counted
/// against it; 0 where convexity cannot be shown. The quadratic is expanded around `centre`, which
/// makes no difference but to rounding.
double shor_lower_bound(const PointProblem& problem, const Intervals& intervals,
                        const ShorMultipliers& multipliers, const Vector& centre, double slack);

}  // namespace reluflow
