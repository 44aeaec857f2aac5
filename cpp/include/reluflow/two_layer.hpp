#pragma once

#include "reluflow/control.hpp"
#include "reluflow/losses.hpp"
#include "reluflow/network.hpp"
#include "reluflow/objective.hpp"
#include "reluflow/panels.hpp"
#include "reluflow/patterns.hpp"

namespace reluflow {

/// Which parameters move.
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

/// N(x_i) = sum_j v_j relu(z_ij), from the tiles of the pre-activations in whatever order they
/// come: sums over every SIMD vector of neurons on their own first, then over the vectors in order.
class NetworkOutputs final : public TileObserver {
 public:
  NetworkOutputs(const Panels& panels, Index padded_rows)
      : panels_(panels), parts_(Matrix::Zero(panels.padded_width() / kLanes, padded_rows)) {}

  /// The output weights v, padded like the panels.
  void set_weights(const double* output) { output_ = output; }
  void see(Index panel, Block rows, const double* preactivations) override;
  /// Fills in the outputs of some examples, once all tiles were seen.
  void sum(Block examples, Vector& outputs) const;

 private:
  const Panels& panels_;
  const double* output_ = nullptr;
  Matrix parts_;  // (vectors of neurons, padded rows)
};

/// What both forms of the two-layer objective share: from pre-activations, kept as a panel matrix,
/// to margins and to their gradient.
class TwoLayerObjective : public Objective {
 public:
  std::vector<Index> unreachable() const override;
  const Vector& labels() const override { return labels_; }
  bool comes_to_rest() const override { return has_minimizer(loss_); }

  /// From now on the velocity of a neuron rises from 0 to its own over a ramp instead of a jump
  /// where an example pushes it towards its kink: relu' is min(1, z / (ramp rms(z_j))) there.
  /// Trajectories that slide along kinks become smooth ones. docs/theory.md, section 2.4.
  void set_kink_ramp(double ramp) { kink_ramp_ = ramp; }

 protected:
  TwoLayerObjective(const VectorView& labels, Index width, MarginLoss loss, Trained trained,
                    Team& team, Control* control);

  Index examples() const { return labels_.size(); }
  /// Shows `outputs_` all pre-activations.
  void show_preactivations(const double* preactivations);
  /// Margins, example weights and log L of the network whose pre-activations `outputs_` has seen.
  double evaluate_margins();
  /// What follows evaluate_margins: which neurons are active on which examples, and the velocity of
  /// the output weights (zero where they are not trained).
  void list_patterns(const double* preactivations, const double* output, double* output_velocity);
  /// d(-log L)/d(pre-activations), which follows list_patterns.
  void backpropagate(double* backpropagated);
  /// Whether the derivatives of a neuron are one number and zeros, and products use that.
  bool multiplies_patterns() const { return kink_ramp_ == 0.0 && patterns_.quicker_than_dense(); }
  /// left * d(-log L)/d(pre-activations), which need not exist.
  void multiply_patterns(const Strips& left, double* out);
  /// left * backpropagated, without the examples whose weight is 0 and the neurons that none of the
  /// others pushes: what is left out would add zeros.
  void multiply_backpropagated(const Strips& left, const double* backpropagated, double* out);

  Vector labels_;
  Panels panels_;
  Index padded_rows_;  // of panel matrices with one row an example
  NetworkOutputs outputs_;
  MarginLoss loss_;
  Trained trained_;
  double kink_ramp_ = 0.0;
  Team& team_;
  Control* control_;
  ActivationPatterns patterns_;
  const double* last_preactivations_ = nullptr;
  const double* last_output_ = nullptr;

 private:
  Vector signed_weights_;
  std::vector<Index> weighted_;  // examples whose weight is not 0
  Vector gathered_;
  Vector product_;
};

/// Two-layer ReLU network in its own parameters: theta = (weights, bias where it is trained,
/// output), one column a neuron, in panels.
class PrimalObjective final : public TwoLayerObjective {
 public:
  PrimalObjective(const MatrixView& inputs, const VectorView& labels, Index width, MarginLoss loss,
                  Trained trained, Team& team, Control* control);

  Index size() const override;
  double evaluate(const Vector& theta, Vector& velocity) override;
  double evaluate_ahead(const Vector& theta, double h, const Vector& direction, Vector& room,
                        Vector& velocity, Team& team) override;
  double squared_norm(const Vector& theta) const override;

  Vector pack(const Network& network) const;
  Network unpack(const Vector& theta) const;

 private:
  void multiply_weights(const Vector& theta);
  /// log L and the velocity, from the pre-activations.
  double descend(const double* output, Vector& velocity);
  bool resting_neurons_moved(const Vector& theta) const;
  /// Whether there are any whose pre-activations are worth keeping.
  bool list_resting_neurons();
  void remember_resting_neurons(const Vector& theta);

  Index dim_;
  std::vector<Index> features_;  // all of them, the bias too
  std::vector<Index> neurons_;   // all of them
  Strips examples_by_row_;       // (n, d + 1), with the bias feature
  Strips examples_by_column_;    // (d + 1, n)
  Vector preactivations_;
  Vector backpropagated_;
  Vector streamed_;  // panels on their way into a product
  // Neurons that no example was active on at the last evaluation, the others, and their columns
  // then: while those stay, so do the pre-activations.
  std::vector<Index> resting_;
  std::vector<Index> awake_;
  Vector resting_columns_;
  Vector awake_weights_;
  Vector awake_preactivations_;
};

/// The same network in the span of its examples: weights = weights0 + coefficients^T inputs, so
/// theta = (coefficients, pre-activations, output) moves with the Gram matrix of the examples
/// alone. Same trajectory at 2 n^2 m operations a gradient, whatever the dimension. docs/theory.md,
/// section 3.
class GramObjective final : public TwoLayerObjective {
 public:
  /// `gram` is that of the examples, with the bias feature where it is trained; without rows it is
  /// computed here.
  GramObjective(const MatrixView& inputs, const VectorView& labels, const MatrixView& gram,
                const Network& initial, MarginLoss loss, Trained trained, Team& team,
                Control* control);

  Index size() const override;
  double evaluate(const Vector& theta, Vector& velocity) override;
  double squared_norm(const Vector& theta) const override;
  /// ||X~^T a||^2 = a . K a, and K a is the difference of the pre-activations.
  Index paired() const override { return block(); }

  Vector start() const;
  /// A difference of two thetas, or a velocity, in the network's own parameters.
  Network unpack_difference(const Vector& difference) const;
  Network unpack(const Vector& theta) const;

 private:
  Index block() const { return panels_.size(padded_rows_); }

  MatrixView inputs_;
  Network initial_;
  Strips gram_;  // of the examples, with the bias feature where it is trained
  Vector initial_preactivations_;
  double initial_squared_norm_;  // of weights and bias
};

/// One gradient of log L in the network's own parameters; a kink ramp of 0 is none.
LossGradient primal_gradient(const Network& network, const MatrixView& inputs,
                             const VectorView& labels, MarginLoss loss, Trained trained,
                             double kink_ramp, int num_threads);

/// The same gradient, through the Gram form.
LossGradient gram_gradient(const Network& network, const MatrixView& inputs,
                           const VectorView& labels, MarginLoss loss, Trained trained,
                           double kink_ramp, int num_threads);

}  // namespace reluflow
