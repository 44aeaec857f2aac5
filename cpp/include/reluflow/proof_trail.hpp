#pragma once

#include <cstdint>
#include <vector>

#include "reluflow/types.hpp"

namespace reluflow {

/// One step of a proof that no u shorter than some bound flips a point. What is known at a node of
/// the proof's tree are intervals of the pre-activations; the root starts with those of the ball.
struct ProofStep {
  enum class Kind : std::int8_t {
    plane,      ///< a plane below N bounds the node, and cuts its intervals down to those of a cap
    bound,      ///< a convex quadratic below ||u||^2 + eta N bounds the node
    ellipsoid,  ///< one that holds on the intervals, and cuts them down to those of an ellipsoid
    branch,     ///< two children: `neuron` is inactive in `child`, active in `child` + 1
  };
  Kind kind;
  Index node;
  double radius;  ///< no u as long as this was looked at
  double eta = 0.0;
  Index neuron = -1;
  Index child = -1;
  /// sigma_j or s_j at supporting neurons, k_j at opposing ones; empty at a branch.
  Vector multipliers;
  /// Of the parabolas of a quadratic at 0; empty otherwise.
  Vector slopes{};
};

/// Takes down the steps of a proof, where they are wanted, so that another can follow it.
class ProofTrail {
 public:
  explicit ProofTrail(bool wanted = false) : wanted_(wanted) {}

  /// The node that the next steps are taken at, and the radius that they look for less than.
  void enter(Index node, double radius) {
    node_ = node;
    radius_ = radius;
  }

  /// `multipliers` are sigma of all neurons, at most 0 at opposing ones.
  void plane(const Vector& multipliers) {
    if (!wanted_) return;
    steps_.push_back(
        {ProofStep::Kind::plane, node_, radius_, 0.0, -1, -1, multipliers.cwiseMax(0.0)});
  }

  void quadratic(ProofStep::Kind kind, double eta, const Vector& supporting,
                 const Vector& curvature, const Vector& slopes) {
    if (!wanted_) return;
    steps_.push_back({kind, node_, radius_, eta, -1, -1, supporting + curvature, slopes});
  }

  /// Returns the first of two children.
  Index branch(Index neuron) {
    const Index child = nodes_;
    nodes_ += 2;
    if (wanted_) {
      steps_.push_back({ProofStep::Kind::branch, node_, radius_, 0.0, neuron, child, {}});
    }
    return child;
  }

  /// Adds the steps that another trail took down, which has no branches.
  void append(const ProofTrail& other) {
    steps_.insert(steps_.end(), other.steps_.begin(), other.steps_.end());
  }

  bool wanted() const { return wanted_; }
  const std::vector<ProofStep>& steps() const { return steps_; }

 private:
  bool wanted_;
  Index node_ = 0;
  double radius_ = 0.0;
  Index nodes_ = 1;
  std::vector<ProofStep> steps_;
};

}  // namespace reluflow
