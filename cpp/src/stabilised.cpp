#include "stabilised.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace reluflow {
namespace {

constexpr int kMostStages = 1000;
constexpr double kDamping = 2.0 / 13;
// The stability interval is 0.653 (s^2 - 1) long.
constexpr double kStagesSquaredPerReach = 1.54;

constexpr int kMostPowerIterations = 50;
constexpr double kRadiusTolerance = 0.05;
constexpr double kRadiusSafety = 1.2;

/// Chebyshev polynomial T_j and its first two derivatives at a point, by their recurrences.
struct Chebyshev {
  double value, slope, curvature;
};

Chebyshev next(double x, const Chebyshev& last, const Chebyshev& before) {
  return {2 * x * last.value - before.value, 2 * (x * last.slope + last.value) - before.slope,
          2 * (x * last.curvature + 2 * last.slope) - before.curvature};
}

Chebyshev chebyshev(int degree, double x) {
  Chebyshev before{1, 0, 0}, last{x, 1, 0};
  for (int j = 2; j <= degree; ++j) {
    const Chebyshev t = next(x, last, before);
    before = last;
    last = t;
  }
  return last;
}

/// The coefficients b_j of the method, for j of at least 2.
double stage_weight(const Chebyshev& t) { return t.curvature / (t.slope * t.slope); }

}  // namespace

int RungeKuttaChebyshev::evaluations_to_prepare() const { return kMostPowerIterations; }

double RungeKuttaChebyshev::distance_from_velocity(Vector& there) {
  assign(team_, there, 2, there - velocity_);
  return norm(there);
}

int RungeKuttaChebyshev::prepare(const Vector& theta) {
  const double speed = norm(velocity_);
  if (!(speed > 0.0)) return 0;
  // Far above rounding, and small enough that no weight of an example changes by much.
  const double size =
      std::sqrt(std::numeric_limits<double>::epsilon()) * std::sqrt(objective_.squared_norm(theta));
  if (direction_.size() == 0) direction_ = velocity_ / speed;
  double radius = spectral_radius_;
  int made = 0;
  while (made < kMostPowerIterations && !control_.stop()) {
    assign(team_, before_, 2, theta + size * direction_);
    objective_.evaluate(before_, stage_velocity_);
    ++made;
    const double change = distance_from_velocity(stage_velocity_);
    if (!(change > 0.0) || !std::isfinite(change)) break;
    assign(team_, direction_, 1, stage_velocity_ / change);
    const double found = change / size;
    const bool settled = std::abs(found - radius) <= kRadiusTolerance * found;
    radius = found;
    if (settled) break;
  }
  spectral_radius_ = radius;
  return made;
}

double RungeKuttaChebyshev::longest(double h) const {
  const double reach = (kMostStages - 1.0) * (kMostStages - 1.0) - 1;
  const double radius = kRadiusSafety * spectral_radius_;
  return radius > 0.0 ? std::min(h, reach / (kStagesSquaredPerReach * radius)) : h;
}

int RungeKuttaChebyshev::evaluations(double h) const {
  const double reach = kStagesSquaredPerReach * kRadiusSafety * spectral_radius_ * h;
  return std::max(2, 1 + static_cast<int>(std::sqrt(1 + reach)));
}

double RungeKuttaChebyshev::attempt(const Vector& theta, double h) {
  const int stages = evaluations(h);
  const double w0 = 1 + kDamping / (static_cast<double>(stages) * stages);
  const Chebyshev end = chebyshev(stages, w0);
  const double w1 = end.slope / end.curvature;
  Chebyshev before{1, 0, 0}, last{w0, 1, 0};
  double b_before = stage_weight(chebyshev(2, w0)), b_last = b_before;  // b_0 = b_1 = b_2
  double a_last = 1 - b_last * w0;
  before_ = theta;
  assign(team_, previous_, 2, theta + (b_last * w1 * h) * velocity_);
  for (int j = 2; j <= stages; ++j) {
    const Chebyshev t = next(w0, last, before);
    const double b = stage_weight(t);
    const double mu = 2 * b * w0 / b_last, nu = -b / b_before;
    const double mu_velocity = 2 * b * w1 / b_last, gamma = -a_last * mu_velocity;
    objective_.evaluate(previous_, stage_velocity_);
    if (control_.reason() != StopReason::none) return 0.0;
    assign(team_, end_, 5,
           (1 - mu - nu) * theta + mu * previous_ + nu * before_ +
               (mu_velocity * h) * stage_velocity_ + (gamma * h) * velocity_);
    before_.swap(previous_);
    previous_.swap(end_);
    before = last;
    last = t;
    b_before = b_last;
    b_last = b;
    a_last = 1 - b * t.value;
  }
  end_.swap(previous_);
  const double log_loss = objective_.evaluate(end_, end_velocity_);
  error_ = norm(0.8 * (theta - end_) + (0.4 * h) * (velocity_ + end_velocity_));
  return log_loss;
}

}  // namespace reluflow
