#pragma once

#include <cmath>

#include "reluflow/control.hpp"
#include "reluflow/memory.hpp"
#include "reluflow/objective.hpp"
#include "reluflow/vectors.hpp"

namespace reluflow {

/// One-step method with an error estimate of third order in the step length, whose last velocity is
/// the first of the next step. All memory of a step is its own, so that the loop allocates nothing.
class Stepper {
 public:
  static constexpr int kErrorOrder = 3;

  virtual ~Stepper() = default;

  /// Most evaluations that `prepare` takes.
  virtual int evaluations_to_prepare() const { return 0; }
  /// Readies a step from theta, whose velocity is velocity(); returns the evaluations it took.
  virtual int prepare(const Vector& theta) {
    (void)theta;
    return 0;
  }
  /// The longest step up to h that the method can take.
  virtual double longest(double h) const { return h; }
  /// Evaluations of a step of length h.
  virtual int evaluations(double h) const = 0;
  /// A step of length h from theta: fills end(), and returns log L there.
  virtual double attempt(const Vector& theta, double h) = 0;
  /// Goes on from where the last attempt ended; `theta` becomes end().
  void accept(Vector& theta) {
    theta.swap(end_);
    velocity_.swap(end_velocity_);
  }

  Vector& velocity() { return velocity_; }
  const Vector& velocity() const { return velocity_; }
  const Vector& end() const { return end_; }
  const Vector& end_velocity() const { return end_velocity_; }
  /// Norm of the estimated error of the last attempt, in the network's parameters.
  double error() const { return error_; }

 protected:
  Stepper(Objective& objective, Team& team)
      : objective_(objective),
        team_(team),
        velocity_(large_vector(objective.size())),
        end_(large_vector(objective.size())),
        end_velocity_(large_vector(objective.size())) {}

  /// Norm of a difference of two thetas.
  template <class Difference>
  double norm(const Difference& difference) const {
    return std::sqrt(squared_difference_norm(objective_, team_, difference));
  }

  Objective& objective_;
  Team& team_;
  Vector velocity_;
  Vector end_;
  Vector end_velocity_;
  double error_ = 0.0;
};

}  // namespace reluflow
