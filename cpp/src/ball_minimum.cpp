#include "reluflow/ball_minimum.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "reluflow/subset_projection.hpp"

namespace reluflow {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Below this share of its own length a row counts as a combination of others.
constexpr double kIndependent = 1e-10;
// Below this share of its terms a squared length is rounding error.
constexpr double kNothing = 1e-26;
constexpr int kJointSteps = 30;
// Gap, relative to the terms of the bound, from which on levels are bisected.
constexpr double kOpen = 1e-9;
constexpr int kLevels = 60;

/// Rows of the neurons held at their kinks, by a Cholesky factor of their Gram matrix.
class Kinks {
 public:
  explicit Kinks(const Matrix& gram) : gram_(gram) {}

  auto lower() const {
    return factor_.topLeftCorner(size(), size()).triangularView<Eigen::Lower>();
  }
  auto upper() const {
    return factor_.topLeftCorner(size(), size()).transpose().triangularView<Eigen::Upper>();
  }

  /// Takes a neuron in, unless its row depends on those of the others.
  void add(Index neuron) {
    const Index count = size();
    Vector column(count);
    for (Index i = 0; i < count; ++i) column[i] = gram_(neurons_[std::size_t(i)], neuron);
    if (count > 0) lower().solveInPlace(column);
    const double rest = gram_(neuron, neuron) - column.squaredNorm();
    if (!(rest > kIndependent * gram_(neuron, neuron))) return;
    if (count == factor_.rows()) {
      factor_.conservativeResize(2 * count + 4, 2 * count + 4);
    }
    factor_.row(count).head(count) = column.transpose();
    factor_(count, count) = std::sqrt(rest);
    neurons_.push_back(neuron);
  }

  Index size() const { return static_cast<Index>(neurons_.size()); }
  Index operator[](Index i) const { return neurons_[static_cast<std::size_t>(i)]; }

  Vector gather(const Vector& all) const {
    Vector chosen(size());
    for (Index i = 0; i < size(); ++i) chosen[i] = all[(*this)[i]];
    return chosen;
  }

  /// The Gram matrix times, and its inverse times, a vector with one entry a kink.
  Vector multiply(const Vector& chosen) const { return lower() * Vector(upper() * chosen); }
  Vector solve(Vector chosen) const {
    lower().solveInPlace(chosen);
    upper().solveInPlace(chosen);
    return chosen;
  }

 private:
  const Matrix& gram_;
  Matrix factor_;
  std::vector<Index> neurons_;
};

class BallDual {
 public:
  BallDual(const PointProblem& problem, const ConvexPiece& piece, double radius)
      : problem_(problem), piece_(piece), radius_(radius), sigma_(piece.slopes) {}

  BallMinimum maximize(const BallOptions& options) {
    start(options.multipliers);
    BallMinimum best;
    for (int round = 0; round < options.max_rounds; ++round) {
      if (lower_bound() >= options.stop_above) break;
      sweep();
      if (lower_bound() >= options.stop_above) break;
      for (int step = 0; step < kJointSteps && climb_jointly(best); ++step) continue;
      refresh();
      consider_point(best);
      if (best.value - lower_bound() <= options.tolerance * magnitude()) break;
    }
    best.lower_bound = lower_bound();
    best.multipliers = sigma_;
    const bool enough = best.lower_bound >= options.stop_above;
    if (!enough && best.value - best.lower_bound > kOpen * magnitude()) bisect_levels(best);
    return best;
  }

 private:
  double lower_bound() const { return offset_ - radius_ * std::sqrt(squared_norm_); }
  double upper(Index j) const { return problem_.side.output[j]; }
  double magnitude() const {
    return std::abs(piece_.constant) + sigma_.cwiseAbs().dot(problem_.preactivations.cwiseAbs());
  }

  void start(const Vector* multipliers) {
    for (const Index j : problem_.side.supporting) {
      const double active = problem_.preactivations[j] > 0.0 ? upper(j) : 0.0;
      sigma_[j] = multipliers ? std::clamp((*multipliers)[j], 0.0, upper(j)) : active;
    }
    refresh();
  }

  void refresh() {
    gram_sigma_.noalias() = problem_.neurons.gram * sigma_;
    offset_ = piece_.constant + sigma_.dot(problem_.preactivations);
    squared_norm_ = std::max(0.0, sigma_.dot(gram_sigma_));
  }

  void sweep() {
    for (const Index j : problem_.side.supporting) {
      const double change = best_multiplier(j) - sigma_[j];
      if (change == 0.0) continue;
      const double g = problem_.neurons.gram(j, j);
      offset_ += change * problem_.preactivations[j];
      squared_norm_ = std::max(0.0, squared_norm_ + change * (2 * gram_sigma_[j] + change * g));
      gram_sigma_ += change * problem_.neurons.gram.row(j).transpose();
      sigma_[j] += change;
    }
  }

  /// Along one coordinate the bound is a t - radius sqrt(g (t + q/g)^2 + h) and a constant.
  double best_multiplier(Index j) const {
    const double a = problem_.preactivations[j], g = problem_.neurons.gram(j, j);
    const double steepest = radius_ * std::sqrt(g);
    if (a >= steepest) return upper(j);
    if (a <= -steepest) return 0.0;
    const double old = sigma_[j], q = gram_sigma_[j] - g * old;
    const double rest = squared_norm_ - old * (2 * gram_sigma_[j] - g * old);
    const double h = std::max(0.0, rest - q * q / g);
    const double t = a * std::sqrt(h / (g * (steepest * steepest - a * a))) - q / g;
    return std::clamp(t, 0.0, upper(j));
  }

  /// Towards the maximum over the multipliers strictly inside their bounds, as far as the bounds
  /// allow; true when one of them stopped it.
  bool climb_jointly(BallMinimum& best) {
    Kinks kinks(problem_.neurons.gram);
    for (const Index j : problem_.side.supporting) {
      if (sigma_[j] > 0.0 && sigma_[j] < upper(j)) kinks.add(j);
    }
    if (kinks.size() == 0) return false;
    const Vector inside = kinks.gather(sigma_), product = kinks.gather(gram_sigma_);
    const Vector own = kinks.multiply(inside);
    // The point is -rows_K^T alpha - tau (part of the others' plane that is orthogonal to rows_K).
    const Vector alpha = kinks.solve(kinks.gather(problem_.preactivations));
    const Vector mu = kinks.solve(product - own);
    const double held = alpha.dot(kinks.gather(problem_.preactivations));
    const double others = squared_norm_ - 2 * inside.dot(product) + inside.dot(own);
    const double free = others - mu.dot(product - own), room = radius_ * radius_ - held;
    if (room <= 0.0) return move(kinks, alpha, kInfinity);
    if (free <= kNothing * std::max(others, squared_norm_)) consider_kinks(kinks, alpha, best);
    const double inverse_tau = std::sqrt(std::max(free, 0.0) / room);
    return move(kinks, inverse_tau * alpha - mu - inside, 1.0);
  }

  bool move(const Kinks& kinks, const Vector& direction, double length) {
    Index blocking = -1;
    double bound = 0.0;
    for (Index i = 0; i < kinks.size(); ++i) {
      const double d = direction[i], at = sigma_[kinks[i]], top = upper(kinks[i]);
      if (d == 0.0) continue;
      const double reach = d > 0.0 ? (top - at) / d : -at / d;
      if (reach >= length) continue;
      length = reach;
      blocking = kinks[i];
      bound = d > 0.0 ? top : 0.0;
    }
    if (!std::isfinite(length)) return false;
    for (Index i = 0; i < kinks.size(); ++i) {
      const double moved = sigma_[kinks[i]] + length * direction[i];
      sigma_[kinks[i]] = std::clamp(moved, 0.0, upper(kinks[i]));
    }
    if (blocking >= 0) sigma_[blocking] = bound;
    refresh();
    return blocking >= 0;
  }

  /// Closes the gap where the minimum lies inside the ball, at which the bound has a kink: a value
  /// is reached in the ball where its level set is no further away than the radius.
  void bisect_levels(BallMinimum& best) {
    const double tolerance = kOpen * magnitude();
    for (int k = 0; k < kLevels && best.value - best.lower_bound > tolerance; ++k) {
      const double level = (best.value + best.lower_bound) / 2;
      const PointProblem shifted{problem_.neurons, problem_.side, problem_.preactivations,
                                 problem_.constant - level};
      const Projection found = project(shifted, {piece_.slopes, piece_.constant - level});
      if (found.distance <= radius_) {
        consider(found.coefficients, best);
        best.value = std::min(best.value, level);
        continue;
      }
      sigma_ = found.multipliers;
      refresh();
      if (lower_bound() > best.lower_bound) best.multipliers = sigma_;
      best.lower_bound = std::max({best.lower_bound, lower_bound(), level});
    }
  }

  /// The point of the ball at which the plane of sigma is lowest.
  void consider_point(BallMinimum& best) const {
    if (!(squared_norm_ > 0.0)) return consider(Vector::Zero(sigma_.size()), best);
    consider(-(radius_ / std::sqrt(squared_norm_)) * sigma_, best);
  }

  /// The point nearest to 0 at which the kinks are: where nothing else pulls, the minimum.
  void consider_kinks(const Kinks& kinks, const Vector& alpha, BallMinimum& best) const {
    Vector coefficients = Vector::Zero(sigma_.size());
    for (Index i = 0; i < kinks.size(); ++i) coefficients[kinks[i]] = -alpha[i];
    consider(coefficients, best);
  }

  void consider(const Vector& coefficients, BallMinimum& best) const {
    Vector z = problem_.preactivations;
    z.noalias() += problem_.neurons.gram * coefficients;
    double value = piece_.constant + piece_.slopes.dot(z);
    for (const Index j : problem_.side.supporting) value += upper(j) * std::max(0.0, z[j]);
    if (value >= best.value) return;
    best.value = value;
    best.coefficients = coefficients;
    best.preactivations = std::move(z);
  }

  const PointProblem& problem_;
  const ConvexPiece& piece_;
  double radius_;
  Vector sigma_;
  Vector gram_sigma_;
  double offset_ = 0.0;
  double squared_norm_ = 0.0;
};

}  // namespace

BallMinimum minimize_in_ball(const PointProblem& problem, const ConvexPiece& piece, double radius,
                             const BallOptions& options) {
  return BallDual(problem, piece, radius).maximize(options);
}

}  // namespace reluflow
