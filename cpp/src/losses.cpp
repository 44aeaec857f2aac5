#include "reluflow/losses.hpp"

#include <cmath>
#include <limits>

namespace reluflow {
namespace {

// log(1 + exp(x)).
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

// log(log(1 + exp(-q))); beyond q = 36 the inner logarithm equals exp(-q) to rounding.
double log_logistic(double q) { return q > 36.0 ? -q : std::log(softplus(-q)); }

double sigmoid(double x) { return std::exp(-softplus(-x)); }

double exponential(const ConstVectorRef& margins, Vector& weights) {
  const double largest = -margins.minCoeff();
  double sum = 0.0;
  for (Index i = 0; i < margins.size(); ++i) sum += weights[i] = std::exp(-margins[i] - largest);
  weights /= sum;
  return largest + std::log(sum / static_cast<double>(margins.size()));
}

double logistic(const ConstVectorRef& margins, Vector& weights) {
  const double largest = log_logistic(margins.minCoeff());
  double sum = 0.0;
  for (Index i = 0; i < margins.size(); ++i) {
    sum += std::exp(log_logistic(margins[i]) - largest);
    weights[i] = std::exp(-softplus(margins[i]) - largest);
  }
  weights /= sum;
  return largest + std::log(sum / static_cast<double>(margins.size()));
}

/// Nothing is left to learn.
double no_loss(Vector& weights) {
  weights.setZero();
  return -std::numeric_limits<double>::infinity();
}

double hinge(const ConstVectorRef& margins, Vector& weights) {
  double sum = 0.0;
  for (Index i = 0; i < margins.size(); ++i) {
    const bool missed = margins[i] < 1.0;
    weights[i] = missed ? 1.0 : 0.0;
    if (missed) sum += 1.0 - margins[i];
  }
  if (sum == 0.0) return no_loss(weights);
  weights /= sum;
  return std::log(sum / static_cast<double>(margins.size()));
}

double squared(const ConstVectorRef& margins, Vector& weights) {
  weights = 1.0 - margins.array();
  const double largest = weights.cwiseAbs().maxCoeff();
  if (largest == 0.0) return no_loss(weights);
  weights /= largest;
  double sum = 0.0;
  for (Index i = 0; i < margins.size(); ++i) sum += weights[i] * weights[i];
  weights *= 2.0 / (largest * sum);
  return 2.0 * std::log(largest) + std::log(sum / static_cast<double>(margins.size()));
}

double cross_entropy(double smoothing, const ConstVectorRef& margins, Vector& weights) {
  const double other = smoothing / 2, own = 1.0 - other;
  double sum = 0.0;
  for (Index i = 0; i < margins.size(); ++i) {
    sum += own * softplus(-margins[i]) + other * softplus(margins[i]);
    weights[i] = own * sigmoid(-margins[i]) - other * sigmoid(margins[i]);
  }
  weights /= sum;
  return std::log(sum / static_cast<double>(margins.size()));
}

}  // namespace

double log_loss_weights(const MarginLoss& loss, const ConstVectorRef& margins, Vector& weights) {
  weights.resize(margins.size());
  switch (loss.kind) {
    case Loss::exponential:
      return exponential(margins, weights);
    case Loss::logistic:
      return logistic(margins, weights);
    case Loss::hinge:
      return hinge(margins, weights);
    case Loss::squared:
      return squared(margins, weights);
    case Loss::cross_entropy:
      break;
  }
  return cross_entropy(loss.label_smoothing, margins, weights);
}

}  // namespace reluflow
