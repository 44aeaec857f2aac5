#pragma once

#include <Eigen/Core>
#include <vector>

#include "reluflow/minorant.hpp"

namespace reluflow {

/// Maximises the bound of a minorant over its multipliers: eta, the s_j of supporting neurons that
/// are near their kinks, and the curvatures k_j. The bound is concave in them; a barrier -log det H
/// keeps the minorant convex, and Newton's iteration follows its central path (Boyd &
/// Vandenberghe 2004, chapter 11). Every iterate is a valid bound. docs/theory.md, section 7.6.
class ShorAscent {
 public:
  /// Lowers the curvatures of `start` until the minorant is convex. `start` has curvatures above 0
  /// at all undecided opposing neurons, and z are the pre-activations near which it is smallest.
  ShorAscent(const PointProblem& problem, const Intervals& intervals, const ShorMultipliers& start,
             const Vector& z);

  /// Up to `steps` steps of Newton's iteration, less where the value reaches `enough`. The barrier
  /// weighs so much that it costs about `level` times what the value lacks to `ceiling`.
  void climb(double level, double ceiling, double enough, int steps);

  /// The squared radius that is bounded, but for rounding; below all numbers when the start failed.
  double value() const { return now_.value; }
  ShorMultipliers multipliers() const;
  /// Where the minorant is smallest.
  Vector centre() const;
  /// The pre-activations there.
  const Vector& preactivations() const { return now_.z; }

 private:
  struct Variables {
    double eta;
    Vector free;       // s of the free supporting neurons
    Vector curvature;  // of the curved neurons
  };
  struct Evaluation {
    double value;
    double barrier = 0.0;
    Vector coefficients;  // the minimum is at rows^T coefficients
    Vector z;             // there
    Eigen::MatrixXd factor{};
  };
  struct Slope {
    Vector gradient;
    Eigen::MatrixXd hessian;
  };

  void choose_free(const ShorMultipliers& start, const Vector& z);
  Evaluation evaluate(const Variables& at) const;
  Slope slope(double barrier_weight) const;
  void add_barrier(double weight, const Eigen::MatrixXd& across, Slope& slope) const;
  Vector newton_step(const Slope& slope) const;
  double longest_step(const Vector& step) const;
  Variables moved(const Vector& step, double share) const;
  Index count() const { return 1 + at_.free.size() + at_.curvature.size(); }

  const PointProblem& problem_;
  const Intervals& intervals_;
  std::vector<Index> free_, full_, curved_, active_;  // neurons: s free, s = eta output, undecided
                                                      // opposing, active opposing
  Variables at_;
  Evaluation now_;
};

}  // namespace reluflow
