#include "reluflow/subset_projection.hpp"

#include <algorithm>
#include <cmath>

#include "active_set.hpp"
#include "dual_ascent.hpp"
#include "reluflow/rounding.hpp"

namespace reluflow {
namespace {

constexpr int kFirstSweeps = 4;
constexpr int kSweepGrowth = 4;
constexpr int kActiveSetIterations = 60;
constexpr int kNewtonIterations = 60;
// How far above 0, relative to its terms, the piece may be at a point that counts as in it where
// kinks meet at a sharp angle.
constexpr double kFeasibilityTolerance = 1e-11;
constexpr double kNear = 1e-12;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// What one vector of multipliers says about a piece.
struct Plane {
  Vector normal;  // rows^T sigma
  double offset;  // sigma . a + constant
  double offset_rounding;
  double normal_rounding;
};

Plane plane_of(const PointProblem& problem, const ConvexPiece& piece, const Vector& multipliers) {
  const Index terms = multipliers.size() + 2;
  Plane plane;
  plane.normal.noalias() = problem.neurons.rows.transpose() * multipliers;
  plane.offset = piece.constant + multipliers.dot(problem.preactivations);
  plane.offset_rounding =
      gamma(terms) *
      (std::abs(piece.constant) + multipliers.cwiseAbs().dot(problem.preactivations.cwiseAbs()));
  plane.normal_rounding = gamma(terms) * multipliers.cwiseAbs().dot(problem.neurons.norms);
  return plane;
}

/// The plane cuts everything off: an offset that is surely positive on a normal that is zero but
/// for rounding.
bool proves_empty(const Plane& plane) {
  return plane.offset > plane.offset_rounding && plane.normal.norm() <= 8 * plane.normal_rounding;
}

/// piece(t u) for pre-activations a + t d, and its slope to the right.
struct Slice {
  double value, slope, magnitude;
};

Slice slice(const PointProblem& problem, const ConvexPiece& piece, const Vector& slopes, double t) {
  Slice result{piece.constant, 0.0, std::abs(piece.constant)};
  const auto add = [&](Index j, double weight) {
    const double a = problem.preactivations[j], d = slopes[j];
    result.magnitude += std::abs(weight) * (std::abs(a) + t * std::abs(d));
    if (problem.side.output[j] > 0.0 && (a + t * d < 0.0 || (a + t * d == 0.0 && d <= 0.0))) return;
    result.value += weight * (a + t * d);
    result.slope += weight * d;
  };
  for (const Index j : problem.side.supporting) add(j, problem.side.output[j]);
  for (const Index j : problem.side.opposing) add(j, piece.slopes[j]);
  return result;
}

/// The smallest t >= 1 with piece(t u) <= 0, by Newton's method, which for a convex function never
/// passes the root it comes to from the left; infinity where the ray misses the piece.
double reach(const PointProblem& problem, const ConvexPiece& piece, const Vector& slopes) {
  const double rounding = gamma(problem.neurons.size() + 8);
  double t = 1.0;
  for (int iteration = 0; iteration < kNewtonIterations; ++iteration) {
    const Slice at = slice(problem, piece, slopes, t);
    if (at.value <= rounding * at.magnitude) return t;
    if (at.slope >= 0.0) {
      return at.value <= kFeasibilityTolerance * at.magnitude ? t : kInfinity;
    }
    t -= at.value / at.slope;
  }
  return kInfinity;
}

/// Takes what `multipliers` prove, and the point that they lead to, where they are better.
void consider(const PointProblem& problem, const ConvexPiece& piece, const Vector& multipliers,
              Projection& best) {
  const Plane plane = plane_of(problem, piece, multipliers);
  if (plane.offset <= 0.0) return;
  if (proves_empty(plane)) {
    best.empty = true;
    best.multipliers = multipliers;
    best.lower_bound = best.distance = kInfinity;
    return;
  }
  const double norm = plane.normal.norm(), lower = plane.offset / norm;
  const double scale = plane.offset / (norm * norm);
  if (lower > best.lower_bound) {
    best.lower_bound = lower;
    best.multipliers = multipliers;
    best.scale = scale;
  }
  const Vector slopes = -scale * (problem.neurons.rows * plane.normal);
  const double stretch = reach(problem, piece, slopes);
  // Of points as near as rounding can tell, the last one is the most accurate.
  if (!std::isfinite(stretch) || stretch * lower > best.distance * (1.0 + kNear)) return;
  best.distance = stretch * lower;
  best.coefficients = -stretch * scale * multipliers;
  best.preactivations = problem.preactivations + stretch * slopes;
}

Projection at_zero(const PointProblem& problem, const Vector& multipliers) {
  Projection result;
  result.distance = 0.0;
  result.multipliers = multipliers;
  result.coefficients = Vector::Zero(problem.neurons.size());
  result.preactivations = problem.preactivations;
  return result;
}

/// A sum of relu's above a positive constant is positive everywhere.
Projection nowhere(const ConvexPiece& piece) {
  Projection result;
  result.empty = true;
  result.multipliers = piece.slopes;
  result.lower_bound = kInfinity;
  return result;
}

}  // namespace

Projection project(const PointProblem& problem, const ConvexPiece& piece,
                   const ProjectionOptions& options) {
  if (piece.constant > 0.0 && (piece.slopes.array() == 0.0).all()) return nowhere(piece);
  DualAscent ascent(problem, piece, options.multipliers);
  if (!ascent.cuts()) return at_zero(problem, ascent.multipliers());
  Projection best;
  best.multipliers = ascent.multipliers();
  const auto settled = [&] {
    return best.empty || best.lower_bound >= options.stop_above ||
           (std::isfinite(best.distance) &&
            best.distance - best.lower_bound <= options.tolerance * best.distance);
  };
  ActiveSet active_set(problem, piece);
  for (int sweeps = kFirstSweeps; sweeps <= options.max_sweeps; sweeps *= kSweepGrowth) {
    ascent.ascend(sweeps, options.tolerance, options.stop_above);
    consider(problem, piece, ascent.multipliers(), best);
    if (best.empty || best.lower_bound >= options.stop_above) break;
    // Also where the gap is closed: it is the square of what the multipliers may still be off.
    consider(problem, piece, active_set.finish(ascent.multipliers(), kActiveSetIterations), best);
    if (settled()) break;
    ascent.restart(best.multipliers);
  }
  return best;
}

double verified_lower_bound(const PointProblem& problem, const ConvexPiece& piece,
                            const Vector& multipliers, double slack) {
  const Plane plane = plane_of(problem, piece, multipliers);
  const double offset = plane.offset - plane.offset_rounding - slack;
  if (offset <= 0.0) return 0.0;
  const double norm = plane.normal.norm() * (1.0 + gamma(plane.normal.size() + 4));
  return (1.0 - 4.0 * kUnitRoundoff) * offset / (norm + plane.normal_rounding);
}

}  // namespace reluflow
