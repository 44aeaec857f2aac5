#pragma once

#include "reluflow/point_problem.hpp"

namespace reluflow {

/// Coordinate ascent on the ratio (sigma . a + constant) / ||rows^T sigma|| of one piece.
class DualAscent {
 public:
  /// Starts from `multipliers`, or where their plane does not cut 0 off, from those of the
  /// supporting neurons that are active at 0.
  DualAscent(const PointProblem& problem, const ConvexPiece& piece, const Vector* multipliers);

  /// False when the piece is <= 0 at 0, where no plane cuts 0 off.
  bool cuts() const { return numerator_ > 0.0; }

  /// Up to `sweeps` passes over the supporting neurons; true when the last one left a relative
  /// gap below `tolerance` or a ratio of at least `stop_above`.
  bool ascend(int sweeps, double tolerance, double stop_above);

  void restart(const Vector& multipliers);
  const Vector& multipliers() const { return sigma_; }

 private:
  void refresh();
  bool improve(Index neuron);
  double best_multiplier(Index neuron, bool rising) const;
  double violation() const;
  double preactivation(Index neuron) const {
    return problem_.preactivations[neuron] - numerator_ / squared_norm_ * gram_sigma_[neuron];
  }

  const PointProblem& problem_;
  const ConvexPiece& piece_;
  Vector sigma_;
  Vector gram_sigma_;
  double numerator_ = 0.0;
  double numerator_magnitude_ = 0.0;  // the sum of the absolute values of its terms
  double squared_norm_ = 0.0;
  double rounding_ = 0.0;  // of squared_norm_
};

}  // namespace reluflow
