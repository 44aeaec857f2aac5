#include "reluflow/certificate.hpp"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>

#include "reluflow/rounding.hpp"

namespace reluflow {
namespace {

// What the Hessian's smallest eigenvalue is shown to exceed: far above rounding, and small enough
// to lose no certificate that matters.
constexpr double kConvexityMargin = 1e-9;
// k_j ||row_j||^2 has to stay below 1 for convexity.
constexpr double kLargestCurvature = 1.0 - 1e-6;

/// The quadratic in u: its value and gradient at the centre, and the weighted rows of its concave
/// part, with bounds of their rounding errors.
struct Quadratic {
  double value = 0.0, value_rounding = 0.0;
  Vector gradient;
  double gradient_rounding = 0.0;
  std::vector<Index> curved;  // neurons with k_j > 0
};

Quadratic expand(const PointProblem& problem, const Intervals& intervals,
                 const ShorMultipliers& multipliers, const Vector& centre) {
  const auto& [neurons, side, a, constant] = problem;
  const double eta = multipliers.eta, norm = centre.norm();
  Vector z = a;
  z.noalias() += neurons.rows * centre;
  Vector weights = multipliers.supporting;  // derivatives of the value in z
  Quadratic result;
  double value = centre.squaredNorm() + eta * constant + multipliers.supporting.dot(z);
  double magnitude = centre.squaredNorm() + std::abs(eta * constant) +
                     multipliers.supporting.cwiseAbs().dot(z.cwiseAbs());
  for (const Index j : side.opposing) {
    if (intervals.high[j] <= 0.0) continue;
    const double w = -eta * side.output[j];
    if (intervals.low[j] >= 0.0) {
      weights[j] = -w;
      value -= w * z[j];
      magnitude += std::abs(w * z[j]);
      continue;
    }
    const double k = multipliers.curvature[j];
    const double square = k * z[j] * z[j], linear = w * z[j] / 2, fixed = w * w / (16 * k);
    weights[j] = -(2 * k * z[j] + w / 2);
    value -= square + linear + fixed;
    magnitude += square + std::abs(linear) + fixed;
    result.curved.push_back(j);
  }
  const Vector z_rounding = gamma(neurons.rows.cols() + 4) * (a.cwiseAbs() + norm * neurons.norms);
  result.value = value;
  result.value_rounding = gamma(neurons.size() + neurons.rows.cols() + 16) * magnitude +
                          2.0 * weights.cwiseAbs().dot(z_rounding);
  result.gradient = 2.0 * centre;
  result.gradient.noalias() += neurons.rows.transpose() * weights;
  result.gradient_rounding =
      gamma(neurons.size() + 8) * (2.0 * norm + weights.cwiseAbs().dot(neurons.norms));
  for (const Index j : result.curved) {
    result.value_rounding += multipliers.curvature[j] * z_rounding[j] * z_rounding[j];
    result.gradient_rounding += 2.0 * multipliers.curvature[j] * z_rounding[j] * neurons.norms[j];
  }
  return result;
}

/// Bounds g^T H^-1 g from above for H = I - sum k_j row_j row_j^T, infinite where H is not shown to
/// be positive definite. With B the rows scaled by sqrt(k_j),
/// g^T H^-1 g = ||g||^2 + (B g)^T (I - B B^T)^-1 (B g).
///
/// Rounding: I - B B^T is factorised with its diagonal lowered by a margin that exceeds the norm of
/// all errors of forming it (gamma(r + 6) trace(B B^T)), of its Cholesky factor and of the
/// triangular solve (together gamma(3 p + 6) p for p curved neurons; Higham 2002, theorems 10.3 and
/// 8.5; Rump 2006) by kConvexityMargin, so that the exact matrix exceeds the square of the computed
/// factor, and kConvexityMargin I.
double inverse_quadratic_form(const PointProblem& problem, const Vector& curvature,
                              const Quadratic& quadratic) {
  const auto& neurons = problem.neurons;
  const auto p = static_cast<Index>(quadratic.curved.size());
  const double norm = quadratic.gradient.norm();
  const double tail = quadratic.gradient_rounding / std::sqrt(kConvexityMargin);
  if (p == 0) return std::pow(norm + quadratic.gradient_rounding, 2);
  Vector roots(p), image(p);
  double trace = 0.0;
  for (Index i = 0; i < p; ++i) {
    const Index j = quadratic.curved[static_cast<std::size_t>(i)];
    roots[i] = std::sqrt(curvature[j]);
    image[i] = roots[i] * neurons.rows.row(j).dot(quadratic.gradient);
    trace += curvature[j] * neurons.norms[j] * neurons.norms[j];
  }
  const Index r = neurons.rows.cols();
  const double margin = kConvexityMargin + 4.0 * kUnitRoundoff + gamma(r + 6) * trace +
                        gamma(3 * p + 6) * static_cast<double>(p);
  Eigen::MatrixXd hessian(p, p);
  for (Index i = 0; i < p; ++i) {
    const Index row = quadratic.curved[static_cast<std::size_t>(i)];
    for (Index l = i; l < p; ++l) {
      const Index column = quadratic.curved[static_cast<std::size_t>(l)];
      hessian(l, i) = -roots[i] * roots[l] * neurons.gram(row, column);
    }
    hessian(i, i) += 1.0 - margin;
  }
  const Eigen::LLT<Eigen::Ref<Eigen::MatrixXd>> factor(hessian);
  if (factor.info() != Eigen::Success) return std::numeric_limits<double>::infinity();
  factor.matrixL().solveInPlace(image);
  const double image_rounding =
      gamma(r + 6) * std::sqrt(trace) * norm / std::sqrt(kConvexityMargin);
  return std::pow(std::hypot(norm, image.norm() + image_rounding) + tail, 2);
}

}  // namespace

ShorMultipliers closed_form_multipliers(const PointProblem& problem, const Intervals& intervals,
                                        const Projection& projection) {
  const auto& output = problem.side.output;
  ShorMultipliers result{2.0 * projection.scale, Vector::Zero(output.size()),
                         Vector::Zero(output.size())};
  double largest_share = 0.0;
  bool others = problem.constant != 0.0;
  for (const Index j : problem.side.supporting) {
    result.supporting[j] = result.eta * projection.multipliers[j];
    largest_share = std::max(largest_share, projection.multipliers[j] / output[j]);
  }
  for (const Index j : problem.side.opposing) others |= projection.multipliers[j] != 0.0;
  // Where the point dies on kinks alone, N takes part no more than they need.
  if (!others) result.eta *= largest_share;
  for (const Index j : problem.side.opposing) {
    if (!intervals.undecided(j)) continue;
    const double weight = -result.eta * output[j], norm = problem.neurons.norms[j];
    const double distance = std::max(std::abs(projection.preactivations[j]),
                                     weight * norm * norm / (4.0 * kLargestCurvature));
    result.curvature[j] = weight / (4.0 * distance);
  }
  return result;
}

double shor_lower_bound(const PointProblem& problem, const Intervals& intervals,
                        const ShorMultipliers& multipliers, const Vector& centre, double slack) {
  const Quadratic quadratic = expand(problem, intervals, multipliers, centre);
  const double drop = inverse_quadratic_form(problem, multipliers.curvature, quadratic) / 4.0;
  const double square = quadratic.value - quadratic.value_rounding - multipliers.eta * slack -
                        drop * (1.0 + 16.0 * kUnitRoundoff);
  return square > 0.0 ? std::sqrt(square) * (1.0 - 4.0 * kUnitRoundoff) : 0.0;
}

}  // namespace reluflow
