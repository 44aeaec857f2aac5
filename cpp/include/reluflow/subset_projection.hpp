#pragma once

#include <limits>

#include "reluflow/point_problem.hpp"

namespace reluflow {

/// The point of C = {u : piece(u) <= 0} nearest to 0, and a proof of how near it can be: piece lies
/// above the plane (sigma . a + constant) + (rows^T sigma) . u for every sigma between 0 and the
/// output at supporting neurons and equal to the slopes elsewhere, so that no point of C is nearer
/// than (sigma . a + constant) / ||rows^T sigma||.
struct Projection {
  bool empty = false;                                         ///< C is empty, up to rounding
  double distance = std::numeric_limits<double>::infinity();  ///< of the nearest point found
  double lower_bound = 0.0;
  Vector multipliers;     ///< sigma of the lower bound
  double scale = 0.0;     ///< -scale rows^T sigma is the point of its plane nearest to 0
  Vector coefficients;    ///< the nearest point found is rows^T coefficients
  Vector preactivations;  ///< there
};

struct ProjectionOptions {
  double tolerance = 1e-13;  ///< relative gap between distance and lower bound
  double stop_above = std::numeric_limits<double>::infinity();  ///< enough of a lower bound
  int max_sweeps = 600;
  const Vector* multipliers = nullptr;  ///< to start from
};

/// Coordinate ascent on the dual ratio, with closed-form maximisers, alternating with an
/// active-set iteration that solves for the kinks z_j = 0 exactly.
/// docs/theory.md, section 7.3.
Projection project(const PointProblem& problem, const ConvexPiece& piece,
                   const ProjectionOptions& options = {});

/// The lower bound of `multipliers` with every rounding error counted against it, for a constant
/// lowered by `slack`.
double verified_lower_bound(const PointProblem& problem, const ConvexPiece& piece,
                            const Vector& multipliers, double slack);

}  // namespace reluflow
