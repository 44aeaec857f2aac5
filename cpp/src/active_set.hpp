#pragma once

#include <vector>

#include "reluflow/point_problem.hpp"

namespace reluflow {

/// Finishes the projection onto one piece exactly. Its dual is the concave quadratic program
///
///   max  s . a + eta constant - ||rows^T s||^2 / 2,  0 <= s_j <= eta output_j,  s_j = eta slopes_j
///
/// at supporting and opposing neurons. A primal active-set method (Nocedal & Wright 2006, section
/// 16.5) on it: supporting neurons are inactive (s = 0), active (s at its upper end) or at their
/// kink (s free, z = 0). With the states held, the maximum is a least-norm problem; step towards
/// it, or along a direction in which there is none, until a multiplier meets its bound; at a
/// maximum release neurons whose z contradicts their state. The value never falls.
class ActiveSet {
 public:
  ActiveSet(const PointProblem& problem, const ConvexPiece& piece);

  /// The multipliers sigma = s / eta that the method reaches from those given.
  Vector finish(const Vector& multipliers, int max_iterations);

 private:
  enum class State : char { inactive, kink, active };
  struct Move;

  void start(const Vector& multipliers);
  bool solve(Move& move);
  enum class Stepped { reached, blocked, forever };
  Stepped step(const Move& move);
  bool release(const Vector& preactivations, double norm, bool one_only);
  double upper(Index neuron) const;
  Vector multipliers() const;
  State& state(Index neuron) { return states_[static_cast<std::size_t>(neuron)]; }

  const PointProblem& problem_;
  const ConvexPiece& piece_;
  bool bounded_;  // false when nothing but kinks holds u: then eta is free, and s has no upper end
  std::vector<State> states_;  // one a neuron; opposing neurons are not looked at
  double eta_ = 0.0;
  Vector s_;
};

}  // namespace reluflow
