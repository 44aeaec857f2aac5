#pragma once

#include <set>
#include <utility>
#include <vector>

#include "reluflow/ball_minimum.hpp"

namespace reluflow {

/// A perturbation u of one example within a ball, and what N and its derivatives are there. The
/// derivative of the minimum of N over the ball counts a supporting neuron at its kink with the
/// share multipliers_j / output_j of its slope. docs/theory.md, section 10.1.
struct AdversarialPoint {
  double value = std::numeric_limits<double>::infinity();  ///< N there
  Vector multipliers;                                      ///< slopes of N in the pre-activations
  Vector coefficients;                                     ///< u is rows^T coefficients
  Vector preactivations;                                   ///< there
};

/// Points that are likely to have the other label: pre-activations there, and for an example which
/// of them to try, the most useful first, and how far away they are.
struct AdversarialTargets {
  ConstMatrixRef preactivations;  ///< (p, R)
  std::vector<Index> order;
  std::vector<double> distance;
};

/// Descends from many starts to small values of N in a ball: N is the smallest of the convex pieces
/// of its subsets of opposing neurons, so minimising one piece and moving on to the piece that is
/// active at its minimum never goes up, and ends after finitely many steps (the convex-concave
/// procedure, Yuille & Rangarajan 2003). A piece whose lower bound passes the best value is left.
/// docs/theory.md, section 10.2.
class BallSearch {
 public:
  /// Keeps every minimum within `spread` of the smallest one.
  BallSearch(const PointProblem& problem, double radius, double spread);

  void from_subset(const Subset& subset, const Vector* multipliers = nullptr);
  /// Starts at the end of the ball in the direction that moves pre-activations by `slopes` over so
  /// much length.
  void from_slopes(const Vector& slopes, double length);
  /// Starts along -rows^T multipliers.
  void from_multipliers(const Vector& multipliers);
  /// Tries the neighbours of the best piece: opposing neurons, together with those that are
  /// parallel to them, added or left out, those nearest to their kinks first, until none of them is
  /// better.
  void improve();

  const AdversarialPoint& best() const { return best_; }
  /// The minima that were found within the spread, the smallest first.
  std::vector<AdversarialPoint> minima() const;

 private:
  bool cannot_improve(const Subset& subset);
  std::vector<Subset> groups_nearest_to_kink() const;

  const PointProblem& problem_;
  double radius_;
  double spread_;
  std::set<Subset> visited_;
  AdversarialPoint best_;
  Vector gram_multipliers_;  // of the best point
  std::vector<std::pair<Index, double>> changed_;
  std::vector<AdversarialPoint> found_;
};

/// Starts from the example itself, along gradients with the active, the supporting, the opposing
/// and all neurons counting as active, and towards targets, one by one, in pairs and together.
void search_in_ball(const PointProblem& problem, double radius, const AdversarialTargets& targets,
                    BallSearch& search);

/// Projected gradient descent (Madry et al. 2018) from the example itself, with normalised
/// gradients and steps of 2.5 radius / steps: the best of its iterates.
AdversarialPoint projected_gradient_descent(const PointProblem& problem, double radius, int steps);

}  // namespace reluflow
