#include "reluflow/losses.hpp"

#include <cmath>

namespace reluflow {
namespace {

// log(log(1 + exp(-q))); beyond q = 36 the inner logarithm equals exp(-q) to rounding.
double log_logistic(double q) {
  if (q > 36.0) return -q;
  const double softplus = std::max(-q, 0.0) + std::log1p(std::exp(-std::abs(q)));
  return std::log(softplus);
}

// log of the logistic function at -q.
double log_sigmoid_negated(double q) {
  return -(std::max(q, 0.0) + std::log1p(std::exp(-std::abs(q))));
}

}  // namespace

double log_loss_weights(Loss loss, const ConstVectorRef& margins, Vector& weights) {
  const Index n = margins.size();
  weights.resize(n);
  if (loss == Loss::exponential) {
    const double largest = -margins.minCoeff();
    double sum = 0.0;
    for (Index i = 0; i < n; ++i) sum += weights[i] = std::exp(-margins[i] - largest);
    weights /= sum;
    return largest + std::log(sum / static_cast<double>(n));
  }
  const double largest = log_logistic(margins.minCoeff());
  double sum = 0.0;
  for (Index i = 0; i < n; ++i) {
    sum += std::exp(log_logistic(margins[i]) - largest);
    weights[i] = std::exp(log_sigmoid_negated(margins[i]) - largest);
  }
  weights /= sum;
  return largest + std::log(sum / static_cast<double>(n));
}

}  // namespace reluflow
