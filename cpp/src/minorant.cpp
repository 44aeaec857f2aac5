#include "reluflow/minorant.hpp"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "reluflow/parabola.hpp"
#include "reluflow/rounding.hpp"

namespace reluflow {
namespace {

// What the Hessian's smallest eigenvalue is shown to exceed: far above rounding, and small enough
// to lose no certificate that matters.
constexpr double kConvexityMargin = 1e-9;
// k_j ||row_j||^2 has to stay below 1 for convexity.
constexpr double kLargestCurvature = 1.0 - 1e-6;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

ShorMultipliers closed_form_multipliers(const PointProblem& problem, const Intervals& intervals,
                                        Majorants majorants, const Projection& projection) {
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
  const Vector normal = problem.neurons.rows.transpose() * projection.multipliers;
  for (const Index j : problem.side.opposing) {
    if (!intervals.undecided(j)) continue;
    const double weight = -result.eta * output[j], norm = problem.neurons.norms[j];
    const double z =
        problem.preactivations[j] - projection.scale * problem.neurons.rows.row(j).dot(normal);
    const double low = majorants == Majorants::intervals ? intervals.low[j] : -kInfinity;
    const double high = majorants == Majorants::intervals ? intervals.high[j] : kInfinity;
    result.curvature[j] =
        std::min(touching_curvature(weight, z, low, high), kLargestCurvature / (norm * norm));
  }
  return result;
}

Minorant::Minorant(const PointProblem& problem, const Intervals& intervals, Majorants majorants,
                   ShorMultipliers multipliers, const Vector& centre, double slack)
    : problem_(problem), multipliers_(std::move(multipliers)), centre_(centre), slack_(slack) {
  expand(intervals, majorants);
  factorise();
}

void Minorant::expand(const Intervals& intervals, Majorants majorants) {
  const auto& [neurons, side, a, constant] = problem_;
  const double eta = multipliers_.eta, norm = centre_.norm();
  slopes_ = Vector::Zero(a.size());
  z_ = a;
  z_.noalias() += neurons.rows * centre_;
  z_rounding_ = gamma(neurons.rows.cols() + 4) * (a.cwiseAbs() + norm * neurons.norms);
  Vector weights = multipliers_.supporting;  // derivatives of the value in z
  value_ = centre_.squaredNorm() + eta * constant + weights.dot(z_);
  double magnitude =
      centre_.squaredNorm() + std::abs(eta * constant) + weights.cwiseAbs().dot(z_.cwiseAbs());
  for (const Index j : side.opposing) {
    if (intervals.high[j] <= 0.0) continue;
    const double w = -eta * side.output[j];
    if (intervals.low[j] >= 0.0) {
      weights[j] = -w;
      value_ -= w * z_[j];
      magnitude += std::abs(w * z_[j]);
      continue;
    }
    const double k = multipliers_.curvature[j];
    const double low = majorants == Majorants::intervals ? intervals.low[j] : -kInfinity;
    const double high = majorants == Majorants::intervals ? intervals.high[j] : kInfinity;
    const double slope = slopes_[j] = parabola_above(k, w, low, high).linear;
    double fixed_magnitude = 0.0;
    const double fixed = least_fixed(k, w, slope, low, high, fixed_magnitude);
    const double square = k * z_[j] * z_[j], linear = slope * z_[j];
    weights[j] = -(2 * k * z_[j] + slope);
    value_ -= square + linear + fixed;
    magnitude += square + std::abs(linear) + fixed_magnitude;
    curved_.push_back(j);
    gaps_.push_back(square + linear + fixed - w * std::max(z_[j], 0.0));
  }
  value_rounding_ = gamma(neurons.size() + neurons.rows.cols() + 16) * magnitude +
                    2.0 * weights.cwiseAbs().dot(z_rounding_);
  gradient_ = 2.0 * centre_;
  gradient_.noalias() += neurons.rows.transpose() * weights;
  gradient_rounding_ =
      gamma(neurons.size() + 8) * (2.0 * norm + weights.cwiseAbs().dot(neurons.norms));
  for (const Index j : curved_) {
    value_rounding_ += multipliers_.curvature[j] * z_rounding_[j] * z_rounding_[j];
    gradient_rounding_ += 2.0 * multipliers_.curvature[j] * z_rounding_[j] * neurons.norms[j];
  }
}

/// Shows that H = I - sum k_j row_j row_j^T is positive definite, and bounds g^T H^-1 g / 4 for the
/// gradient g. With B the rows scaled by sqrt(k_j),
/// g^T H^-1 g = ||g||^2 + (B g)^T (I - B B^T)^-1 (B g).
///
/// Rounding: I - B B^T is factorised with its diagonal lowered by a margin that exceeds the norm of
/// all errors of forming it (gamma(r + 6) trace(B B^T)), of its Cholesky factor and of triangular
/// solves with it (together gamma(3 p + 6) p for p curved neurons; Higham 2002, theorems 10.3 and
/// 8.5; Rump 2006) by kConvexityMargin, so that the exact matrix exceeds the square of the computed
/// factor, and kConvexityMargin I.
void Minorant::factorise() {
  const auto& neurons = problem_.neurons;
  const auto p = static_cast<Index>(curved_.size());
  const double norm = gradient_.norm();
  if (p == 0) {
    convex_ = true;
    drop_ = std::pow(norm + gradient_rounding_, 2) / 4.0;
    return;
  }
  Vector roots(p), image(p);
  double trace = 0.0;
  for (Index i = 0; i < p; ++i) {
    const Index j = curved_[static_cast<std::size_t>(i)];
    roots[i] = std::sqrt(multipliers_.curvature[j]);
    image[i] = roots[i] * neurons.rows.row(j).dot(gradient_);
    trace += multipliers_.curvature[j] * neurons.norms[j] * neurons.norms[j];
  }
  const Index r = neurons.rows.cols();
  const double margin = kConvexityMargin + 4.0 * kUnitRoundoff + gamma(r + 6) * trace +
                        gamma(3 * p + 6) * static_cast<double>(p);
  factor_.resize(p, p);
  for (Index i = 0; i < p; ++i) {
    const Index row = curved_[static_cast<std::size_t>(i)];
    for (Index l = i; l < p; ++l) {
      const Index column = curved_[static_cast<std::size_t>(l)];
      factor_(l, i) = -roots[i] * roots[l] * neurons.gram(row, column);
    }
    factor_(i, i) += 1.0 - margin;
  }
  const Eigen::LLT<Eigen::Ref<Eigen::MatrixXd>> cholesky(factor_);
  convex_ = cholesky.info() == Eigen::Success;
  if (!convex_) return;
  cholesky.matrixL().solveInPlace(image);
  const double image_rounding =
      gamma(r + 6) * std::sqrt(trace) * norm / std::sqrt(kConvexityMargin);
  const double tail = gradient_rounding_ / std::sqrt(kConvexityMargin);
  drop_ = std::pow(std::hypot(norm, image.norm() + image_rounding) + tail, 2) / 4.0 *
          (1.0 + 16.0 * kUnitRoundoff);
}

double Minorant::lower_bound() const {
  if (!convex_) return 0.0;
  const double square = value_ - value_rounding_ - multipliers_.eta * slack_ - drop_;
  return square > 0.0 ? std::sqrt(square) * (1.0 - 4.0 * kUnitRoundoff) : 0.0;
}

/// With c the minimum, (u - c)^T H (u - c) <= radius^2 - minimum. In direction row_j the ellipsoid
/// reaches sqrt(row_j^T H^-1 row_j) times the root of that, and row_j^T H^-1 row_j =
/// (((I - B B^T)^-1)_jj - 1) / k_j; c lies within the root of the drop of the centre, likewise.
void Minorant::cut(double radius, Intervals& intervals) const {
  if (!convex_) return;
  const double room =
      radius * radius - (value_ - value_rounding_ - multipliers_.eta * slack_ - drop_);
  const double reach = (std::sqrt(std::max(room, 0.0)) + std::sqrt(drop_)) * (1.0 + 1e-12);
  const auto p = static_cast<Index>(curved_.size());
  Eigen::MatrixXd inverse = Eigen::MatrixXd::Identity(p, p);
  factor_.triangularView<Eigen::Lower>().solveInPlace(inverse);
  for (Index i = 0; i < p; ++i) {
    const Index j = curved_[static_cast<std::size_t>(i)];
    const double diagonal = inverse.col(i).squaredNorm() * (1.0 + gamma(p + 8));
    const double width =
        reach * std::sqrt(std::max(0.0, diagonal - 1.0) / multipliers_.curvature[j]) +
        interval_margin(problem_, j, radius) + 4.0 * z_rounding_[j];
    intervals.low[j] = std::max(intervals.low[j], z_[j] - width);
    intervals.high[j] = std::min(intervals.high[j], z_[j] + width);
  }
}

Index Minorant::widest_gap() const {
  if (gaps_.empty()) return -1;
  return curved_[static_cast<std::size_t>(
      std::distance(gaps_.begin(), std::max_element(gaps_.begin(), gaps_.end())))];
}

}  // namespace reluflow
