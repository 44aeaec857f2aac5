#include "reluflow/shor_ascent.hpp"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>

#include "reluflow/parabola.hpp"

namespace reluflow {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();
constexpr int kPowerIterations = 20;
constexpr double kFirstEigenvalue = 0.9;
constexpr int kShrinkings = 20;
constexpr double kShrinkage = 0.7;
// Of [0, eta output]: how near to its ends a free multiplier starts.
constexpr double kInside = 0.02;
constexpr double kBoundaryShare = 0.95;
constexpr double kArmijo = 0.05;
constexpr int kHalvings = 12;
// A step that promises less than this share of what is lacking is not worth its price.
constexpr double kWorthwhileGain = 0.02;

Eigen::MatrixXd submatrix(const Matrix& whole, const std::vector<Index>& rows,
                          const std::vector<Index>& columns) {
  Eigen::MatrixXd part(static_cast<Index>(rows.size()), static_cast<Index>(columns.size()));
  for (Index j = 0; j < part.cols(); ++j) {
    for (Index i = 0; i < part.rows(); ++i) {
      part(i, j) = whole(rows[static_cast<std::size_t>(i)], columns[static_cast<std::size_t>(j)]);
    }
  }
  return part;
}

Vector entries(const Vector& whole, const std::vector<Index>& chosen) {
  Vector part(static_cast<Index>(chosen.size()));
  for (Index i = 0; i < part.size(); ++i) part[i] = whole[chosen[static_cast<std::size_t>(i)]];
  return part;
}

/// Of a positive semidefinite matrix, roughly.
double largest_eigenvalue(const Eigen::MatrixXd& matrix) {
  Vector x = Vector::Ones(matrix.rows()).normalized();
  double value = 0.0;
  for (int i = 0; i < kPowerIterations; ++i) {
    const Vector image = matrix * x;
    value = image.norm();
    if (value == 0.0) return 0.0;
    x = image / value;
  }
  return value;
}

}  // namespace

ShorAscent::ShorAscent(const PointProblem& problem, const Intervals& intervals,
                       const ShorMultipliers& start, const Vector& z)
    : problem_(problem), intervals_(intervals), at_{start.eta, {}, {}}, now_{kNever, 0.0, {}, {}} {
  for (const Index j : problem.side.opposing) {
    if (intervals.undecided(j)) {
      curved_.push_back(j);
    } else if (intervals.high[j] > 0.0) {
      active_.push_back(j);
    }
  }
  if (curved_.empty() || !(start.eta > 0.0)) return;
  at_.curvature = entries(start.curvature, curved_);
  choose_free(start, z);
  now_ = evaluate(at_);
  if (now_.value > kNever) return;
  const Vector roots = at_.curvature.cwiseSqrt();
  at_.curvature *=
      kFirstEigenvalue /
      largest_eigenvalue(roots.asDiagonal() * submatrix(problem.neurons.gram, curved_, curved_) *
                         roots.asDiagonal());
  for (int shrinking = 0; shrinking < kShrinkings && now_.value == kNever; ++shrinking) {
    now_ = evaluate(at_);
    at_.curvature *= now_.value == kNever ? kShrinkage : 1.0;
  }
}

/// The supporting neurons that are at a kink, or on the wrong side of it.
void ShorAscent::choose_free(const ShorMultipliers& start, const Vector& z) {
  std::vector<double> values;
  for (const Index j : problem_.side.supporting) {
    const double top = start.eta * problem_.side.output[j], s = start.supporting[j];
    const bool low = s <= 1e-9 * top, high = s >= (1.0 - 1e-9) * top;
    if (intervals_.undecided(j) &&
        ((!low && !high) || (low && z[j] > 0.0) || (high && z[j] < 0.0))) {
      free_.push_back(j);
      values.push_back(std::clamp(s, kInside * top, (1.0 - kInside) * top));
    } else if (!low) {
      full_.push_back(j);
    }
  }
  at_.free = VectorView(values.data(), static_cast<Index>(values.size()));
}

ShorMultipliers ShorAscent::multipliers() const {
  const Index size = problem_.neurons.size();
  ShorMultipliers result{at_.eta, Vector::Zero(size), Vector::Zero(size)};
  for (const Index j : full_) result.supporting[j] = at_.eta * problem_.side.output[j];
  for (std::size_t i = 0; i < free_.size(); ++i) {
    result.supporting[free_[i]] = at_.free[static_cast<Index>(i)];
  }
  for (std::size_t i = 0; i < curved_.size(); ++i) {
    result.curvature[curved_[i]] = at_.curvature[static_cast<Index>(i)];
  }
  return result;
}

Vector ShorAscent::centre() const { return problem_.neurons.rows.transpose() * now_.coefficients; }

/// With B the rows of the curved neurons times sqrt(k) and M = I - B B^T, the quadratic in u whose
/// gradient at 0 is rows^T weights has its minimum at -rows^T (weights + B-part M^-1 B rows^T
/// weights) / 2.
ShorAscent::Evaluation ShorAscent::evaluate(const Variables& at) const {
  const auto& [neurons, side, a, constant] = problem_;
  const Vector roots = at.curvature.cwiseSqrt();
  Evaluation result{kNever, 0.0, {}, {}};
  result.factor =
      -(roots.asDiagonal() * submatrix(neurons.gram, curved_, curved_) * roots.asDiagonal());
  result.factor.diagonal().array() += 1.0;
  const Eigen::LLT<Eigen::Ref<Eigen::MatrixXd>> cholesky(result.factor);
  if (cholesky.info() != Eigen::Success) return result;
  Vector weights = Vector::Zero(neurons.size());
  for (const Index j : full_) weights[j] = at.eta * side.output[j];
  for (const Index j : active_) weights[j] = at.eta * side.output[j];
  for (std::size_t i = 0; i < free_.size(); ++i) weights[free_[i]] = at.free[static_cast<Index>(i)];
  double value = at.eta * constant + weights.dot(a);
  for (std::size_t i = 0; i < curved_.size(); ++i) {
    const Index j = curved_[i];
    const double k = at.curvature[static_cast<Index>(i)], w = -at.eta * side.output[j];
    const Parabola q = parabola_above(k, w, intervals_.low[j], intervals_.high[j]);
    weights[j] = -(2 * k * a[j] + q.linear);
    value -= k * a[j] * a[j] + q.linear * a[j] + q.fixed;
  }
  const Vector image = neurons.gram * weights;
  const Vector projected = roots.cwiseProduct(entries(image, curved_));
  const Vector solved = cholesky.solve(projected);
  result.coefficients = -weights / 2;
  for (std::size_t i = 0; i < curved_.size(); ++i) {
    const auto row = static_cast<Index>(i);
    result.coefficients[curved_[i]] -= roots[row] * solved[row] / 2;
  }
  result.value = value - (weights.dot(image) + projected.dot(solved)) / 4;
  result.z = a;
  result.z.noalias() += neurons.gram * result.coefficients;
  result.barrier = 2.0 * result.factor.diagonal().array().log().sum() +
                   at.curvature.array().log().sum() + at.free.array().log().sum();
  for (std::size_t i = 0; i < free_.size(); ++i) {
    result.barrier += std::log(at.eta * side.output[free_[i]] - at.free[static_cast<Index>(i)]);
  }
  return result;
}

/// Derivatives of value + barrier_weight * barrier in (eta, free, curvature). The value is a
/// minimum over u: with F its function of u and the variables, the second derivatives are
/// F_tt - F_tu F_uu^-1 F_ut, and F_uu^-1 = H^-1 / 2 acts on rows i, j as across_ij / 2.
ShorAscent::Slope ShorAscent::slope(double barrier_weight) const {
  const auto& [neurons, side, a, constant] = problem_;
  const auto p = static_cast<Index>(curved_.size()), f = static_cast<Index>(free_.size());
  const Vector roots = at_.curvature.cwiseSqrt();
  Eigen::MatrixXd root = Eigen::MatrixXd::Identity(p, p);
  now_.factor.triangularView<Eigen::Lower>().solveInPlace(root);
  const Eigen::MatrixXd inverse = root.transpose().triangularView<Eigen::Upper>() * root;
  const Eigen::MatrixXd across = roots.cwiseInverse().asDiagonal() *
                                 (inverse - Eigen::MatrixXd::Identity(p, p)) *
                                 roots.cwiseInverse().asDiagonal();
  Slope result{Vector(count()), Eigen::MatrixXd::Zero(count(), count())};
  auto& [gradient, hessian] = result;

  Vector direction = Vector::Zero(neurons.size());  // of the weights when eta grows
  gradient[0] = constant;
  for (const auto* group : {&full_, &active_}) {
    for (const Index j : *group) {
      direction[j] = side.output[j];
      gradient[0] += side.output[j] * now_.z[j];
    }
  }
  gradient.segment(1, f) = entries(now_.z, free_);
  Vector bends(p);  // of the weights when the curvature grows
  for (Index i = 0; i < p; ++i) {
    const Index j = curved_[static_cast<std::size_t>(i)];
    const double z = now_.z[j], w = -side.output[j];
    const Parabola q =
        parabola_above(at_.curvature[i], at_.eta * w, intervals_.low[j], intervals_.high[j]);
    direction[j] = -w * q.linear_w;
    bends[i] = -(2 * z + q.linear_k);
    gradient[0] -= w * (q.linear_w * z + q.fixed_w);
    gradient[1 + f + i] = -(z * z + q.linear_k * z + q.fixed_k);
    hessian(0, 0) -= w * w * (q.linear_ww * z + q.fixed_ww);
    hessian(1 + f + i, 0) = -w * (q.linear_kw * z + q.fixed_kw);
    hessian(1 + f + i, 1 + f + i) = -(q.linear_kk * z + q.fixed_kk);
  }
  const Vector image = neurons.gram * direction;
  const Vector scaled = roots.cwiseProduct(entries(image, curved_));
  const Vector solved = inverse * scaled;
  hessian(0, 0) -= (direction.dot(image) + scaled.dot(solved)) / 2;
  hessian.block(1 + f, 0, p, 1) -= bends.cwiseProduct(solved.cwiseQuotient(roots)) / 2;
  hessian.block(1 + f, 1 + f, p, p) -= bends.asDiagonal() * across * bends.asDiagonal() / 2;
  if (f > 0) {
    const Eigen::MatrixXd mixed = submatrix(neurons.gram, free_, curved_) * roots.asDiagonal();
    const Eigen::MatrixXd reached = mixed * inverse;
    hessian.block(1, 0, f, 1) -= (entries(image, free_) + mixed * solved) / 2;
    hessian.block(1, 1, f, f) -=
        (submatrix(neurons.gram, free_, free_) + reached * mixed.transpose()) / 2;
    hessian.block(1 + f, 1, p, f) -=
        bends.cwiseQuotient(roots).asDiagonal() * reached.transpose() / 2;
  }
  add_barrier(barrier_weight, across, result);
  return result;
}

void ShorAscent::add_barrier(double weight, const Eigen::MatrixXd& across, Slope& slope) const {
  auto& [gradient, hessian] = slope;
  const Index f = at_.free.size(), p = at_.curvature.size();
  gradient.tail(p) += weight * (at_.curvature.cwiseInverse() - across.diagonal());
  hessian.bottomRightCorner(p, p) -= weight * across.cwiseAbs2();
  hessian.diagonal().tail(p) -= weight * at_.curvature.cwiseAbs2().cwiseInverse();
  for (Index i = 0; i < f; ++i) {
    const double top = problem_.side.output[free_[static_cast<std::size_t>(i)]];
    const double below = 1.0 / at_.free[i], above = 1.0 / (at_.eta * top - at_.free[i]);
    gradient[0] += weight * top * above;
    gradient[1 + i] += weight * (below - above);
    hessian(0, 0) -= weight * top * top * above * above;
    hessian(1 + i, 0) += weight * top * above * above;
    hessian(1 + i, 1 + i) -= weight * (below * below + above * above);
  }
}

/// Empty where the matrix is too far from negative definite.
Vector ShorAscent::newton_step(const Slope& slope) const {
  const Vector scale = slope.hessian.diagonal().cwiseAbs().cwiseSqrt().cwiseInverse();
  if (!scale.allFinite()) return {};
  for (const double shift : {1e-13, 1e-6, 1e-3, 1e-1}) {
    Eigen::MatrixXd scaled = -(scale.asDiagonal() * slope.hessian * scale.asDiagonal());
    scaled.diagonal().array() += shift;
    const Eigen::LLT<Eigen::Ref<Eigen::MatrixXd>> cholesky(scaled);
    if (cholesky.info() != Eigen::Success) continue;
    return scale.cwiseProduct(cholesky.solve(scale.cwiseProduct(slope.gradient)));
  }
  return {};
}

/// Up to 1, and a little less than what leads out of the variables' ranges.
double ShorAscent::longest_step(const Vector& step) const {
  double longest = 1.0;
  const auto keep_positive = [&](double value, double change) {
    if (change < 0.0) longest = std::min(longest, -kBoundaryShare * value / change);
  };
  const Index f = at_.free.size();
  keep_positive(at_.eta, step[0]);
  for (Index i = 0; i < f; ++i) {
    const double top = problem_.side.output[free_[static_cast<std::size_t>(i)]];
    keep_positive(at_.free[i], step[1 + i]);
    keep_positive(at_.eta * top - at_.free[i], step[0] * top - step[1 + i]);
  }
  for (Index i = 0; i < at_.curvature.size(); ++i) {
    keep_positive(at_.curvature[i], step[1 + f + i]);
  }
  return longest;
}

ShorAscent::Variables ShorAscent::moved(const Vector& step, double share) const {
  const Index f = at_.free.size();
  return {at_.eta + share * step[0], at_.free + share * step.segment(1, f),
          at_.curvature + share * step.tail(at_.curvature.size())};
}

void ShorAscent::climb(double level, double ceiling, double enough, int steps) {
  const auto terms = static_cast<double>(2 * curved_.size() + 2 * free_.size());
  for (int i = 0; i < steps && now_.value > kNever && now_.value < enough; ++i) {
    const double lacking = std::max(ceiling - now_.value, 0.0);
    const double weight = level * lacking / terms;
    const Slope here = slope(weight);
    const Vector step = newton_step(here);
    if (step.size() == 0) return;
    const double promised = here.gradient.dot(step);
    if (!(promised > kWorthwhileGain * lacking)) return;
    const double merit = now_.value + weight * now_.barrier;
    double share = longest_step(step);
    bool better = false;
    for (int halving = 0; halving < kHalvings && !better; ++halving) {
      const Variables next = moved(step, share);
      Evaluation there = evaluate(next);
      better = there.value > kNever &&
               there.value + weight * there.barrier >= merit + kArmijo * share * promised;
      if (better) {
        at_ = next;
        now_ = std::move(there);
      }
      share /= 2;
    }
    if (!better) return;
  }
}

}  // namespace reluflow
