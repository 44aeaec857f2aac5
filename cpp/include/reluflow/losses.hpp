#pragma once

#include "reluflow/types.hpp"

namespace reluflow {

/// exp(-q); log(1 + exp(-q)); max(0, 1 - q); (1 - q)^2; and cross-entropy of the two labels with
/// label smoothing a, (1 - a/2) log(1 + exp(-q)) + (a/2) log(1 + exp(q)).
enum class Loss { exponential, logistic, hinge, squared, cross_entropy };

/// The loss of a margin.
struct MarginLoss {
  MarginLoss(Loss of_kind, double smoothing = 0.0) : kind(of_kind), label_smoothing(smoothing) {}
  Loss kind;
  double label_smoothing;  ///< of cross_entropy
};

/// Whether a margin can be finite and its loss minimal.
inline bool has_minimizer(const MarginLoss& loss) {
  return loss.kind != Loss::exponential && loss.kind != Loss::logistic;
}

/// log L for the mean loss L of `margins`, and the weights p with
/// -grad log L = sum_i p_i grad(margin_i). Everything is done in the log domain, so margins of
/// 1e100 neither overflow nor underflow. Where L = 0, log L is -infinity and the weights are 0.
/// docs/theory.md, sections 2.2 and 2.8.
double log_loss_weights(const MarginLoss& loss, const ConstVectorRef& margins, Vector& weights);

}  // namespace reluflow
