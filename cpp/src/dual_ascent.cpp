#include "dual_ascent.hpp"

#include <algorithm>
#include <cmath>

#include "reluflow/rounding.hpp"

namespace reluflow {
namespace {

// A pre-activation below this share of its terms is rounding error: nothing to go by.
constexpr double kNoise = 1e-14;
// Below this share of its terms the numerator is too blurred to climb on.
constexpr double kLeastNumerator = 1e-10;

Vector active_multipliers(const PointProblem& problem, const ConvexPiece& piece) {
  Vector sigma = piece.slopes;
  for (const Index j : problem.side.supporting) {
    if (problem.preactivations[j] > 0.0) sigma[j] = problem.side.output[j];
  }
  return sigma;
}

}  // namespace

DualAscent::DualAscent(const PointProblem& problem, const ConvexPiece& piece,
                       const Vector* multipliers)
    : problem_(problem), piece_(piece) {
  if (multipliers) restart(*multipliers);
  if (!cuts()) restart(active_multipliers(problem, piece));
}

void DualAscent::restart(const Vector& multipliers) {
  sigma_ = piece_.slopes;
  for (const Index j : problem_.side.supporting) {
    sigma_[j] = std::clamp(multipliers[j], 0.0, problem_.side.output[j]);
  }
  refresh();
}

void DualAscent::refresh() {
  const Vector normal = problem_.neurons.rows.transpose() * sigma_;
  gram_sigma_.noalias() = problem_.neurons.rows * normal;
  numerator_ = piece_.constant + sigma_.dot(problem_.preactivations);
  numerator_magnitude_ = sigma_.cwiseAbs().dot(problem_.preactivations.cwiseAbs());
  squared_norm_ = normal.squaredNorm();
  const double magnitude = sigma_.cwiseAbs().dot(problem_.neurons.norms);
  rounding_ = std::pow(8.0 * gamma(sigma_.size()) * magnitude, 2);
}

bool DualAscent::ascend(int sweeps, double tolerance, double stop_above) {
  refresh();
  for (int sweep = 0; sweep < sweeps && squared_norm_ > rounding_; ++sweep) {
    bool improved = false;
    for (const Index j : problem_.side.supporting) improved |= improve(j);
    if (numerator_ >= stop_above * std::sqrt(squared_norm_)) return true;
    if (!improved || violation() <= tolerance * numerator_) return true;
  }
  return false;
}

/// True when the multiplier of `neuron` moved.
bool DualAscent::improve(Index neuron) {
  if (squared_norm_ <= rounding_) return false;
  const double a = problem_.preactivations[neuron], old = sigma_[neuron];
  const double shift = numerator_ / squared_norm_ * gram_sigma_[neuron], z = a - shift;
  if (std::abs(z) <= kNoise * (std::abs(a) + std::abs(shift))) return false;
  const bool rising = z > 0.0;
  if (old == (rising ? problem_.side.output[neuron] : 0.0)) return false;
  const double change = best_multiplier(neuron, rising) - old;
  if (change == 0.0 || (change > 0.0) != rising) return false;
  const double numerator = numerator_ + change * a;
  const double squared_norm =
      squared_norm_ +
      change * (2.0 * gram_sigma_[neuron] + change * problem_.neurons.gram(neuron, neuron));
  // Where the ratio does not depend on this multiplier, rounding alone would drive it.
  if (numerator <= kLeastNumerator * numerator_magnitude_) return false;
  if (numerator * numerator * squared_norm_ <= numerator_ * numerator_ * squared_norm) return false;
  sigma_[neuron] = old + change;
  numerator_ = numerator;
  squared_norm_ = squared_norm;
  gram_sigma_ += change * problem_.neurons.gram.row(neuron).transpose();
  return true;
}

/// Along one coordinate the ratio is (alpha + a t) / sqrt(q0 + 2 q1 t + g t^2), whose derivative
/// has the sign of (a q0 - alpha q1) + (a q1 - alpha g) t.
double DualAscent::best_multiplier(Index neuron, bool rising) const {
  const double a = problem_.preactivations[neuron], sigma = sigma_[neuron];
  const double g = problem_.neurons.gram(neuron, neuron), upper = problem_.side.output[neuron];
  const double alpha = numerator_ - sigma * a;
  const double q1 = gram_sigma_[neuron] - sigma * g;
  const double q0 = squared_norm_ - sigma * (2.0 * gram_sigma_[neuron] - sigma * g);
  const double curvature = a * q1 - alpha * g;
  if (curvature >= 0.0) return rising ? upper : 0.0;
  return std::clamp((alpha * q1 - a * q0) / curvature, 0.0, upper);
}

/// piece(u) at the point u of the plane that is nearest to 0.
double DualAscent::violation() const {
  double sum = 0.0;
  for (const Index j : problem_.side.supporting) {
    const double z = preactivation(j);
    sum += z > 0.0 ? (problem_.side.output[j] - sigma_[j]) * z : -sigma_[j] * z;
  }
  return sum;
}

}  // namespace reluflow
