#pragma once

#include "reluflow/control.hpp"
#include "reluflow/types.hpp"

namespace reluflow {

/// N(x) = sum_j v_j relu(w_j . x + b_j): weights (m, d), bias (m), output (m).
struct Network {
  Matrix weights;
  Vector bias;
  Vector output;
};

/// N(x) for every row of `inputs` (n, d).
Vector forward(const MatrixView& weights, const VectorView& bias, const VectorView& output,
               const MatrixView& inputs, int num_threads, Control* control = nullptr);

}  // namespace reluflow
