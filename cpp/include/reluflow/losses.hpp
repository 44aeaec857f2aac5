#pragma once

#include "reluflow/types.hpp"

namespace reluflow {

enum class Loss { exponential, logistic };

/// log L for the mean loss L of `margins`, and the weights p with
/// -grad log L = sum_i p_i grad(margin_i). Everything is done in the log domain, so margins of
/// 1e100 neither overflow nor underflow. docs/theory.md, section 2.
double log_loss_weights(Loss loss, const ConstVectorRef& margins, Vector& weights);

}  // namespace reluflow
