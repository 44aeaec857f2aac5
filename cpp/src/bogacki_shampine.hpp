#pragma once

#include <array>

#include "stepper.hpp"

namespace reluflow {

/// Embedded pair of orders 3 and 2 whose last stage is the first of the next step.
/// Bogacki & Shampine (1989), "A 3(2) pair of Runge-Kutta formulas".
class BogackiShampine final : public Stepper {
 public:
  BogackiShampine(Objective& objective, Team& team)
      : Stepper(objective, team), third_(large_vector(objective.size())) {}

  int evaluations(double) const override { return 3; }

  double attempt(const Vector& theta, double h) override {
    // In the memory of what is computed from them: fewer vectors travel through the caches.
    Vector& stage = end_;
    Vector& second = error_;
    assign(team_, stage, 2, theta + (h / 2) * velocity_);
    objective_.evaluate(stage, second);
    assign(team_, stage, 2, theta + (3 * h / 4) * second);
    objective_.evaluate(stage, third_);
    const auto& b = kSolution;
    const auto& e = kError;
    assign(team_, end_, 4, theta + h * (b[0] * velocity_ + b[1] * second + b[2] * third_));
    const double log_loss = objective_.evaluate(end_, end_velocity_);
    assign(team_, error_, 4,
           h * (e[0] * velocity_ + e[1] * second + e[2] * third_ + e[3] * end_velocity_));
    return log_loss;
  }

 private:
  static constexpr std::array<double, 3> kSolution = {2.0 / 9, 1.0 / 3, 4.0 / 9};
  static constexpr std::array<double, 4> kError = {2.0 / 9 - 7.0 / 24, 1.0 / 3 - 1.0 / 4,
                                                   4.0 / 9 - 1.0 / 3, -1.0 / 8};
  Vector third_;
};

}  // namespace reluflow
