#pragma once

#include <vector>

#include "reluflow/control.hpp"
#include "reluflow/losses.hpp"
#include "reluflow/objective.hpp"

namespace reluflow {

/// What a hidden unit makes of its pre-activation z, with its incoming weights and bias (w, b).
enum class Activation {
  relu,                        ///< max(z, 0)
  leaky_relu,                  ///< z above 0, parameter * z below
  polynomial_relu,             ///< max(z, 0)^parameter
  normalized_polynomial_relu,  ///< max(z, 0)^parameter / ||(w, b)||^(parameter - 1) (Min & Vidal
                               ///< 2024)
};

/// A fully connected network of any depth. Its parameters are one vector: layer by layer the
/// weights, one unit a row, and the biases where the layer has them; then the skip connection's
/// weights, one output a row.
struct Architecture {
  std::vector<Index> widths;  ///< inputs, hidden layers, outputs
  std::vector<bool> biased;   ///< one a layer
  Activation activation = Activation::relu;
  double parameter = 0.0;  ///< slope or power
  bool skip = false;       ///< whether the outputs see the inputs directly, too

  Index layers() const { return static_cast<Index>(widths.size()) - 1; }
  Index inputs() const { return widths.front(); }
  Index outputs() const { return widths.back(); }
  Index size() const;
  /// Degree of homogeneity of the outputs in all parameters, without biases above the first layer
  /// and without a skip connection.
  double degree() const;
};

/// Outputs (n, outputs) of a network for every row of `inputs` (n, d).
Matrix deep_forward(const Architecture& architecture, const VectorView& theta,
                    const MatrixView& inputs, int num_threads);

/// log L of a deep network. With one output the margin of an example is y N(x); with more it is the
/// output of its own class less the log-sum-exp of the others, so that the logistic loss is the
/// cross-entropy. docs/theory.md, section 9.
class DeepObjective final : public Objective {
 public:
  /// `targets` are labels -1 and +1 with one output, and classes 0, 1, .. with more.
  DeepObjective(const Architecture& architecture, const MatrixView& inputs,
                const VectorView& targets, const MarginLoss& loss, int num_threads,
                Control* control);

  Index size() const override { return architecture_.size(); }
  double evaluate(const Vector& theta, Vector& velocity) override;
  double squared_norm(const Vector& theta) const override { return theta.squaredNorm(); }
  double normalized_margin(double margin, double norm) const override;
  /// Examples that a layer without active units hides from all parameters.
  std::vector<Index> unreachable() const override;
  bool comes_to_rest() const override { return has_minimizer(loss_); }
  const Vector& labels() const override { return targets_; }

 private:
  /// What one layer computed at the last theta, examples in rows.
  struct Layer {
    Matrix preactivations;
    Matrix activations;
    Vector norms;  // of the units' incoming weights, where the activation needs them
  };

  void forward(const Vector& theta);
  void set_margins();
  /// d(sum_i p_i margin_i) / d(outputs), examples in rows.
  Matrix output_gradient() const;
  void backward(const Vector& theta, Matrix gradient, Vector& velocity);

  Architecture architecture_;
  MatrixView inputs_;
  Vector targets_;
  MarginLoss loss_;
  int num_threads_;
  Control* control_;
  std::vector<Layer> layers_;
};

}  // namespace reluflow
