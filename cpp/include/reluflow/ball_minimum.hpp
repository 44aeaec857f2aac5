#pragma once

#include <limits>

#include "reluflow/point_problem.hpp"

namespace reluflow {

/// The smallest value of a convex piece over the perturbations u of norm up to a radius, and what
/// bounds it from below: piece lies above the plane (sigma . a + constant) + (rows^T sigma) . u for
/// every sigma between 0 and the output at supporting neurons and equal to the slopes elsewhere, so
/// that no value in the ball is below sigma . a + constant - radius ||rows^T sigma||.
struct BallMinimum {
  double value = std::numeric_limits<double>::infinity();  ///< at the point found
  double lower_bound = -std::numeric_limits<double>::infinity();
  Vector multipliers;     ///< sigma of the lower bound
  Vector coefficients;    ///< the point found is rows^T coefficients
  Vector preactivations;  ///< there
};

struct BallOptions {
  double tolerance = 1e-13;  ///< gap between value and bound, relative to the terms of the bound
  double stop_above = std::numeric_limits<double>::infinity();  ///< enough of a lower bound
  int max_rounds = 100;
  const Vector* multipliers = nullptr;  ///< to start from
};

/// Maximises the concave lower bound over the box of sigma: coordinate by coordinate, each in
/// closed form, and between sweeps jointly over the multipliers that are strictly inside the box,
/// whose neurons are held at their kinks. docs/theory.md, section 10.2.
BallMinimum minimize_in_ball(const PointProblem& problem, const ConvexPiece& piece, double radius,
                             const BallOptions& options = {});

}  // namespace reluflow
