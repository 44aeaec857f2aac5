#pragma once

#include "stepper.hpp"

namespace reluflow {

/// Runge-Kutta-Chebyshev method of order 2: s stages reach along the negative real axis like s^2,
/// so that a stiff problem with real spectrum, such as a gradient flow, costs the square root of
/// its stiffness. Sommeijer, Shampine & Verwer (1998), "RKC: an explicit solver for parabolic
/// PDEs"; the spectral radius by a nonlinear power method as in section 2 there.
class RungeKuttaChebyshev final : public Stepper {
 public:
  RungeKuttaChebyshev(Objective& objective, Team& team, Control& control)
      : Stepper(objective, team),
        control_(control),
        before_(large_vector(objective.size())),
        previous_(large_vector(objective.size())),
        stage_velocity_(large_vector(objective.size())) {}

  int evaluations_to_prepare() const override;
  int prepare(const Vector& theta) override;
  double longest(double h) const override;
  int evaluations(double h) const override;
  double attempt(const Vector& theta, double h) override;

 private:
  double distance_from_velocity(Vector& there);

  Control& control_;
  Vector before_;    // Y_{j-2}, and the displaced point of the power method
  Vector previous_;  // Y_{j-1}
  Vector stage_velocity_;
  Vector direction_;  // the power method's last vector, kept from step to step
  double spectral_radius_ = 0.0;
};

}  // namespace reluflow
