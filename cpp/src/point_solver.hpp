#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "reluflow/local_search.hpp"
#include "reluflow/perturbation.hpp"

namespace reluflow {

/// What is known of one point: bounds that only ever get better.
struct PointState {
  double radius = std::numeric_limits<double>::infinity();
  double lower_bound = 0.0;
  Vector coefficients;
  Subset subset;
  Proof proof = Proof::none;
  Index nodes = 0;
  ProofTrail trail;
};

/// Improves the state of one point, step by step.
class PointSolver {
 public:
  /// Outputs computed from the pre-activations of `problem` may be off by up to `slack`.
  PointSolver(const PointProblem& problem, const PerturbationOptions& options, double slack,
              PointState& state);

  /// Cheap bounds: the crossing along the gradient, and how fast the output can fall at most.
  void bracket(double lipschitz);

  /// Searches from the cheap starts, and from all others where those leave a gap.
  void search(const Matrix& targets);

  /// Raises the lower bound, in order of cost, until it proves the radius or has taken the first
  /// few nodes of branch and bound.
  void prove(const std::function<bool()>& stop);

  /// Whether there are nodes left, and time to look at them.
  bool unfinished() const {
    return tree_ && !tree_->finished() && tree_->nodes() < options_.max_nodes;
  }
  /// Looks at them.
  void branch_on(int num_threads, const std::function<bool()>& stop);

 private:
  bool strict() const { return options_.flip == Flip::strict; }
  double enough() const { return (1.0 - options_.rtol) * state_.radius; }
  double slack() const;
  void raise(double lower_bound);
  bool settle(Proof proof);
  void follow_gradient();
  void adopt();
  void certify();
  void plant(BranchingRoot root);
  void branch(Index most, int num_threads, const std::function<bool()>& stop);
  void enumerate();
  void note_subsets(const std::vector<Projection>& projections);

  const PointProblem& problem_;
  const PerturbationOptions& options_;
  double slack_;
  PointState& state_;
  PointProblem searched_;  // with a margin where the flip is strict
  LocalSearch search_;
  Projection best_;  // of the problem itself
  std::unique_ptr<BranchAndBound> tree_;
  double certified_radius_ = std::numeric_limits<double>::infinity();
};

}  // namespace reluflow
