#pragma once

#include <array>

#include "stepper.hpp"

namespace reluflow {

/// Embedded pair of orders 3 and 2 whose last stage is the first of the next step.
/// Bogacki & Shampine (1989), "A 3(2) pair of Runge-Kutta formulas".
class BogackiShampine final : public Stepper {
 public:
  BogackiShampine(Objective& objective, Team& team)
      : Stepper(objective, team),
        second_(large_vector(objective.size())),
        third_(large_vector(objective.size())) {}

  int evaluations(double) const override { return 3; }

  double attempt(const Vector& theta, double h) override {
    Vector& stage = end_;  // until it is needed: fewer vectors travel through the caches
    objective_.evaluate_ahead(theta, h / 2, velocity_, stage, second_, team_);
    objective_.evaluate_ahead(theta, 3 * h / 4, second_, stage, third_, team_);
    const auto& b = kSolution;
    const auto& e = kError;
    assign(team_, end_, 4, theta + h * (b[0] * velocity_ + b[1] * second_ + b[2] * third_));
    const double log_loss = objective_.evaluate(end_, end_velocity_);
    error_ = h * norm(e[0] * velocity_ + e[1] * second_ + e[2] * third_ + e[3] * end_velocity_);
    return log_loss;
  }

 private:
  static constexpr std::array<double, 3> kSolution = {2.0 / 9, 1.0 / 3, 4.0 / 9};
  static constexpr std::array<double, 4> kError = {2.0 / 9 - 7.0 / 24, 1.0 / 3 - 1.0 / 4,
                                                   4.0 / 9 - 1.0 / 3, -1.0 / 8};
  Vector second_;
  Vector third_;
};

}  // namespace reluflow
