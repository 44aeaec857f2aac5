#pragma once

#include "reluflow/control.hpp"
#include "reluflow/losses.hpp"
#include "reluflow/network.hpp"
#include "reluflow/objective.hpp"

namespace reluflow {

/// Which parameters move; a bias that does not move must be zero.
struct Trained {
  bool output = true;
  bool bias = true;
};

/// log L and its gradient with respect to weights, bias and output.
struct LossGradient {
  double log_loss;
  Vector margins;
  Vector example_weights;
  Network velocity;  ///< -grad log L
};

/// Two-layer ReLU network in its own parameters: theta = (weights row by row, bias, output).
class PrimalObjective final : public Objective {
 public:
  PrimalObjective(const MatrixView& inputs, const VectorView& labels, Index width, Loss loss,
                  Trained trained, int num_threads, Control* control);

  Index size() const override { return width_ * (inputs_.cols() + 2); }
  double evaluate(const Vector& theta, Vector& velocity) override;
  double squared_norm(const Vector& theta) const override { return theta.squaredNorm(); }
  double squared_difference_norm(const Vector& d) const override { return d.squaredNorm(); }
  std::vector<Index> unreachable() const override;
  const Vector& labels() const override { return labels_; }

  Vector pack(const Network& network) const;
  Network unpack(const Vector& theta) const;

 private:
  MatrixView inputs_;
  Vector labels_;
  Index width_;
  Loss loss_;
  Trained trained_;
  int num_threads_;
  Control* control_;
  Matrix activations_;     // relu of the pre-activations, (n, m)
  Matrix backpropagated_;  // d(-log L)/d(pre-activations), (n, m)
  Vector output_;
};

/// The same network in the span of its examples: weights = weights0 + coefficients^T inputs, so
/// theta = (coefficients (n, m), pre-activations (n, m), output (m)) moves with the Gram matrix of
/// the examples alone. Same trajectory at 2 n^2 m operations a gradient, whatever the dimension.
/// docs/theory.md, section 3.
class GramObjective final : public Objective {
 public:
  GramObjective(const MatrixView& inputs, const VectorView& labels, const Network& initial,
                Loss loss, Trained trained, int num_threads, Control* control);

  Index size() const override { return 2 * inputs_.rows() * width_ + width_; }
  double evaluate(const Vector& theta, Vector& velocity) override;
  double squared_norm(const Vector& theta) const override;
  double squared_difference_norm(const Vector& difference) const override;
  std::vector<Index> unreachable() const override;
  const Vector& labels() const override { return labels_; }

  Vector start() const;
  /// A difference of two thetas, or a velocity, in the network's own parameters.
  Network unpack_difference(const Vector& difference) const;
  Network unpack(const Vector& theta) const;

 private:
  MatrixView inputs_;
  Vector labels_;
  Network initial_;
  Index width_;
  Loss loss_;
  Trained trained_;
  int num_threads_;
  Control* control_;
  Matrix gram_;                    // of the examples, with the bias feature where it is trained
  Matrix initial_preactivations_;  // (n, m)
  double initial_squared_norm_;    // of weights and bias
  Matrix activations_;
  Vector output_;
};

/// One gradient of log L in the network's own parameters.
LossGradient primal_gradient(const Network& network, const MatrixView& inputs,
                             const VectorView& labels, Loss loss, Trained trained, int num_threads);

/// The same gradient, through the Gram form.
LossGradient gram_gradient(const Network& network, const MatrixView& inputs,
                           const VectorView& labels, Loss loss, Trained trained, int num_threads);

}  // namespace reluflow
