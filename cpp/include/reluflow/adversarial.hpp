#pragma once

#include <vector>

#include "reluflow/ball_search.hpp"
#include "reluflow/control.hpp"
#include "reluflow/losses.hpp"
#include "reluflow/network.hpp"
#include "reluflow/objective.hpp"
#include "reluflow/two_layer.hpp"

namespace reluflow {

/// The examples that an adversary perturbs. `targets` (p, d) are inputs that are likely to have the
/// other label, and row i of `target_order` (n, s) those to try for example i, the most useful
/// first, filled up with -1.
struct AttackedExamples {
  MatrixView inputs;
  VectorView labels;
  MatrixView targets;
  Eigen::Map<const Eigen::Matrix<std::int64_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>
      target_order;
};

/// How the smallest margin in the ball is sought.
struct Attack {
  double radius = 0.0;
  int descent_steps = 0;  ///< of projected gradient descent; 0 for the search over pieces
};

/// Perturbations of all examples at one network, one or several an example.
struct AdversarialPoints {
  std::vector<Index> example;
  Vector margins;
  Matrix multipliers;   ///< (p, m), of y N in the pre-activations
  Matrix coefficients;  ///< (p, m): the perturbation is weights^T coefficients
};

/// Every perturbation found whose margin is within `spread` of the smallest of its example.
AdversarialPoints adversarial_points(const Network& network, const AttackedExamples& examples,
                                     const Attack& attack, double spread, int num_threads,
                                     Control* control = nullptr);

/// log of the mean loss of min over ||delta|| <= radius of y N(x + delta), for a two-layer ReLU
/// network in its own parameters, theta = (weights row by row, bias, output). Its derivative is
/// that of the loss at the minimisers (Danskin 1967), supporting neurons at their kinks counting
/// with the shares that make the minimisers stationary. docs/theory.md, section 10.1.
class AdversarialObjective final : public Objective {
 public:
  AdversarialObjective(const AttackedExamples& examples, Index width, const MarginLoss& loss,
                       Trained trained, const Attack& attack, int num_threads, Control* control);

  Index size() const override { return width_ * (examples_.inputs.cols() + 2); }
  double evaluate(const Vector& theta, Vector& velocity) override;
  double squared_norm(const Vector& theta) const override { return theta.squaredNorm(); }
  /// Examples that no neuron of their own label is active on, unperturbed.
  std::vector<Index> unreachable() const override;
  bool comes_to_rest() const override { return has_minimizer(loss_); }
  const Vector& labels() const override { return labels_; }

  Vector pack(const Network& network) const;
  Network unpack(const Vector& theta) const;
  /// (n, m), at the last evaluated theta.
  const Matrix& coefficients() const { return points_.coefficients; }

 private:
  AttackedExamples examples_;
  Vector labels_;
  Index width_;
  MarginLoss loss_;
  Trained trained_;
  Attack attack_;
  int num_threads_;
  Control* control_;
  Matrix preactivations_;  // unperturbed
  Vector output_;
  AdversarialPoints points_;
};

}  // namespace reluflow
