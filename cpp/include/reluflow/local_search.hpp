#pragma once

#include <set>

#include "reluflow/subset_projection.hpp"

namespace reluflow {

/// Descends from many starts to small perturbations: N is the smallest of the convex pieces of its
/// subsets of opposing neurons, so projecting onto one piece and moving on to the piece that is
/// active at the projection never goes up, and ends after finitely many steps (the convex-concave
/// procedure, Yuille & Rangarajan 2003). docs/theory.md, section 7.2.
class LocalSearch {
 public:
  explicit LocalSearch(const PointProblem& problem);

  /// Starts where the half-line with these slopes of the pre-activations first flips the point.
  void from_ray(const Vector& slopes);
  /// Starts along -rows^T multipliers.
  void from_multipliers(const Vector& multipliers);
  /// Starts from a piece, and gives it up where it lies too far away to be of use.
  void from_subset(const Subset& subset);
  /// Tries the neighbours of the best piece: opposing neurons added or left out, those nearest to
  /// their kinks first, until none of them is better.
  void improve();

  bool found() const { return best_.distance < kNever; }
  const Projection& best() const { return best_; }
  const Subset& best_subset() const { return best_subset_; }

 private:
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  void descend(Subset subset, double stop_above);
  std::vector<Index> nearest_to_kink() const;

  const PointProblem& problem_;
  std::set<Subset> visited_;
  Projection best_;
  Subset best_subset_;
};

/// Starts along gradients: of the output, and with the supporting or the opposing neurons counting
/// as active.
void search_along_gradients(const PointProblem& problem, LocalSearch& search);

/// Starts along mixtures of neurons, towards `targets` (rows of pre-activations at points that are
/// likely to be flipped, the most useful first), one by one, in pairs and together, and from the
/// pieces without and with all opposing neurons; then improves the best.
void search_widely(const PointProblem& problem, const Matrix& targets, LocalSearch& search);

}  // namespace reluflow
