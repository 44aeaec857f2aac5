#pragma once

#include <array>

#include "reluflow/objective.hpp"

namespace reluflow {

/// Embedded pair of orders 3 and 2 whose last stage is the first of the next step.
/// Bogacki & Shampine (1989), "A 3(2) pair of Runge-Kutta formulas".
struct BogackiShampine {
  static constexpr int kOrder = 3;
  static constexpr int kEvaluationsPerStep = 3;
  static constexpr std::array<double, 3> kSolution = {2.0 / 9, 1.0 / 3, 4.0 / 9};
  static constexpr std::array<double, 4> kError = {2.0 / 9 - 7.0 / 24, 1.0 / 3 - 1.0 / 4,
                                                   4.0 / 9 - 1.0 / 3, -1.0 / 8};
};

/// Working memory of a step, so that the loop allocates nothing.
struct StepBuffers {
  explicit StepBuffers(Index size) : stage(size), end(size), error(size) {
    for (Vector& velocity : velocities) velocity.resize(size);
  }
  std::array<Vector, 4> velocities;
  Vector stage;
  Vector end;
  Vector error;
};

/// One step of length h from theta, whose velocity is velocities[0]; fills `end`, `error` and
/// velocities[3], and returns log L at `end`.
inline double bogacki_shampine_step(Objective& objective, const Vector& theta, double h,
                                    StepBuffers& buffers) {
  auto& [k1, k2, k3, k4] = buffers.velocities;
  buffers.stage = theta + (h / 2) * k1;
  objective.evaluate(buffers.stage, k2);
  buffers.stage = theta + (3 * h / 4) * k2;
  objective.evaluate(buffers.stage, k3);
  constexpr auto b = BogackiShampine::kSolution;
  constexpr auto e = BogackiShampine::kError;
  buffers.end = theta + h * (b[0] * k1 + b[1] * k2 + b[2] * k3);
  const double log_loss = objective.evaluate(buffers.end, k4);
  buffers.error = h * (e[0] * k1 + e[1] * k2 + e[2] * k3 + e[3] * k4);
  return log_loss;
}

}  // namespace reluflow
