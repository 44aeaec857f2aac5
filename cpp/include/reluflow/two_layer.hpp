#pragma once

#include "reluflow/control.hpp"
#include "reluflow/losses.hpp"
#include "reluflow/network.hpp"
#include "reluflow/objective.hpp"
#include "reluflow/panels.hpp"

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
  /// d(-log L)/d(pre-activations), and the velocity of the output weights (zero where they are not
  /// trained); follows evaluate_margins.
  void backpropagate(const double* preactivations, const double* output, double* backpropagated,
                     double* output_velocity);
  /// left * backpropagated, without the examples whose weight is 0 and the neurons that none of the
  /// others pushes: what is left out would add zeros. Neurons that are active on the same examples
  /// move alike, up to their output weights: late in training one of each kind is multiplied.
  void multiply_backpropagated(const Strips& left, const double* backpropagated,
                               const double* output, double* out);

  Vector labels_;
  Panels panels_;
  Index padded_rows_;  // of panel matrices with one row an example
  NetworkOutputs outputs_;
  MarginLoss loss_;
  Trained trained_;
  double kink_ramp_ = 0.0;
  Team& team_;
  Control* control_;
  std::vector<Index> weighted_;  // examples whose weight is not 0
  std::vector<Index> pushed_;    // neurons that a weighted example is active on
  std::vector<Index> active_;    // neurons that any example is active on
  const double* last_preactivations_ = nullptr;
  const double* last_output_ = nullptr;

 private:
  /// A neuron whose column of a backpropagated product is that of another one times a factor.
  struct Follower {
    Index neuron;
    Index leader;
    double factor;
  };

  static constexpr Index kNobody = -1;

  void list_pushed();
  /// Splits the pushed neurons into leaders, one an activation pattern, and their followers.
  void list_leaders(const double* backpropagated, const double* output);
  /// Where the first neuron of a pattern stands, or is to be put.
  Index& slot(double pattern);
  bool same_pattern(const double* backpropagated, Index j, Index l) const;

  Vector keys_;  // of the examples
  Vector signed_weights_;
  Vector patterns_;  // of the neurons: sums of the keys of the weighted examples they are active on
  Vector lit_;       // of the neurons: bits that are 0 where no example is active
  std::vector<Index> slots_;  // hash table: of every pattern the first neuron, or kNobody
  std::vector<Index> leaders_;
  std::vector<Follower> followers_;
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
  double squared_norm(const Vector& theta) const override;

  Vector pack(const Network& network) const;
  Network unpack(const Vector& theta) const;

 private:
  void multiply_weights(const Vector& theta);
  bool resting_neurons_moved(const Vector& theta) const;
  void remember_resting_neurons(const Vector& theta);

  Index dim_;
  std::vector<Index> features_;  // all of them, the bias too
  std::vector<Index> neurons_;   // all of them
  Strips examples_by_row_;       // (n, d + 1), with the bias feature
  Strips examples_by_column_;    // (d + 1, n)
  Vector preactivations_;
  Vector backpropagated_;
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
