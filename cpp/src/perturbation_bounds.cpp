#include "reluflow/perturbation_bounds.hpp"

#include <algorithm>
#include <cmath>

#include "reluflow/ray_crossing.hpp"
#include "reluflow/rounding.hpp"

namespace reluflow {
namespace {

constexpr double kRelaxationTolerance = 1e-8;
constexpr int kRelaxationSweeps = 64;
constexpr double kWorthwhileShrinkage = 0.05;
// Of the largest pre-activation of a ball.
constexpr double kIntervalMargin = 1e-9;

/// The largest l . u over the part of the ball ||u|| <= radius with direction . u >= depth, where
/// `along` = direction . l, off by up to `rounding` times `norm` = ||l||.
double largest_in_cap(double along, double norm, double rounding, double radius, double depth) {
  if (radius * along >= depth * norm) return radius * norm;
  const double across =
      std::sqrt(std::max(0.0, norm * norm - along * along) + 4.0 * rounding * norm * norm);
  return along * depth + across * std::sqrt(std::max(0.0, radius * radius - depth * depth));
}

/// Intersects the intervals with those of the cap; the largest relative shrinkage of one that is
/// undecided and opposing.
double cut_to_cap(const PointProblem& problem, const Vector& direction, double radius, double depth,
                  Intervals& intervals) {
  const Vector along = problem.neurons.rows * direction;
  const double rounding = gamma(problem.neurons.rows.cols() + 8);
  double shrinkage = 0.0;
  for (Index j = 0; j < along.size(); ++j) {
    if (!intervals.undecided(j)) continue;
    const double a = problem.preactivations[j], norm = problem.neurons.norms[j];
    const double margin = interval_margin(problem, j, radius);
    const double before = intervals.high[j] - intervals.low[j];
    const double up = largest_in_cap(along[j], norm, rounding, radius, depth);
    const double down = largest_in_cap(-along[j], norm, rounding, radius, depth);
    intervals.high[j] = std::min(intervals.high[j], a + up + margin);
    intervals.low[j] = std::max(intervals.low[j], a - down - margin);
    if (problem.side.output[j] < 0.0) {
      shrinkage = std::max(shrinkage, 1.0 - (intervals.high[j] - intervals.low[j]) / before);
    }
  }
  return shrinkage;
}

}  // namespace

double interval_margin(const PointProblem& problem, Index neuron, double radius) {
  return (kIntervalMargin + gamma(problem.neurons.rows.cols() + 8)) *
         (std::abs(problem.preactivations[neuron]) + problem.neurons.norms[neuron] * radius);
}

Intervals ball_intervals(const PointProblem& problem, double radius) {
  Intervals intervals{problem.preactivations, problem.preactivations};
  for (Index j = 0; j < problem.neurons.size(); ++j) {
    const double reach = problem.neurons.norms[j] * radius + interval_margin(problem, j, radius);
    intervals.low[j] -= reach;
    intervals.high[j] += reach;
  }
  return intervals;
}

double neuronwise_lower_bound(const PointProblem& problem, double slack) {
  const Vector slopes =
      (problem.side.output.array() > 0.0).select(-problem.neurons.norms, problem.neurons.norms);
  const auto root = [&](double margin) {
    const Ray ray{problem.preactivations, slopes, problem.side.output, problem.constant - margin};
    return first_crossing(ray, Flip::nonstrict);
  };
  const double t = root(slack);
  if (!std::isfinite(t)) return t;
  const Vector weights = problem.side.output.cwiseAbs();
  const double magnitude = std::abs(problem.constant) + slack +
                           weights.dot(problem.preactivations.cwiseAbs()) +
                           t * weights.dot(problem.neurons.norms);
  return root(slack + 2.0 * gamma(problem.neurons.size() + 8) * magnitude);
}

ConvexPiece chord_piece(const PointProblem& problem, const Intervals& intervals) {
  ConvexPiece piece{Vector::Zero(problem.neurons.size()), problem.constant};
  for (const Index j : problem.side.opposing) {
    const double low = intervals.low[j], high = intervals.high[j];
    if (high <= 0.0) continue;
    if (low >= 0.0) {
      piece.slopes[j] = problem.side.output[j];
    } else {
      piece.slopes[j] = problem.side.output[j] * (high / (high - low));
      piece.constant -= piece.slopes[j] * low;
    }
  }
  return piece;
}

Relaxation tighten(const PointProblem& problem, double radius, double enough, double slack,
                   int max_rounds, Intervals& intervals, ProofTrail& trail) {
  Relaxation result;
  Vector warm;
  for (int round = 0; round < max_rounds; ++round) {
    if (intervals.contradictory()) {
      result.lower_bound = radius;
      return result;
    }
    const ConvexPiece piece = chord_piece(problem, intervals);
    ProjectionOptions options;
    options.tolerance = kRelaxationTolerance;
    options.max_sweeps = kRelaxationSweeps;
    options.stop_above = radius;
    if (warm.size() > 0) options.multipliers = &warm;
    result.projection = project(problem, piece, options);
    warm = result.projection.multipliers;
    const double depth = std::min(radius, verified_lower_bound(problem, piece, warm, slack));
    const double gain = depth - result.lower_bound;
    result.lower_bound = std::max(result.lower_bound, depth);
    if (depth > 0.0) trail.plane(warm);
    if (result.lower_bound >= enough || depth <= 0.0) return result;
    const Vector normal = problem.neurons.rows.transpose() * warm;
    const double shrinkage = cut_to_cap(problem, -normal.normalized(), radius, depth, intervals);
    if (shrinkage < kWorthwhileShrinkage && gain < kWorthwhileShrinkage * depth) return result;
  }
  return result;
}

}  // namespace reluflow
