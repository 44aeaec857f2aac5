#pragma once

#include <functional>
#include <limits>
#include <vector>

#include "reluflow/control.hpp"
#include "reluflow/objective.hpp"
#include "reluflow/team.hpp"

namespace reluflow {

enum class FlowStatus {
  converged,
  max_evaluations,
  max_seconds,
  interrupted,
  stuck_points,
  dead_class,
  not_separable,
  step_underflow,
  stationary,
};

enum class FlowMethod { bogacki_shampine, rkc2 };

struct FlowOptions {
  double log_inverse_loss = 1.0;  ///< stop once log(1/L) reaches this
  double rtol = 1e-3;             ///< error a step, relative to the norm of the parameters
  double max_evaluations = std::numeric_limits<double>::infinity();
  FlowMethod method = FlowMethod::bogacki_shampine;
  /// Longest step, relative to the norm.
  double largest_move = std::numeric_limits<double>::infinity();
  bool descend = false;  ///< refuse steps that raise log L by more than rtol
};

/// One recorded moment of a flow.
struct FlowPoint {
  double log_inverse_loss;
  double rescaled_time;
  double norm;
  double normalized_margin;
  double evaluations;
};

struct FlowOutcome {
  FlowStatus status;
  std::vector<FlowPoint> trajectory;
  std::vector<Index> unreachable;  ///< with stuck_points and dead_class: the examples
  Vector margins;
  double accepted_steps;
  double rejected_steps;
};

/// Called by the integrating thread a few times a second.
using FlowObserver = std::function<void(const FlowPoint&)>;

/// Follows d theta / d tau = -grad log L from `theta`, which is moved to where the flow ends.
/// Embedded Bogacki-Shampine 3(2) pair (Bogacki & Shampine 1989), or the stabilised method RKC2
/// (Sommeijer, Shampine & Verwer 1998), with error control in the norm of all parameters. Where L
/// has minimisers, a step that raises L is refused, and a flow whose gradient has fallen to a
/// fraction kStationary of its largest, both relative to the parameters, is stationary.
/// The team shares the arithmetic of a step on long vectors. docs/theory.md, section 2.
inline constexpr double kStationary = 1e-8;
FlowOutcome integrate(Objective& objective, Vector& theta, const FlowOptions& options, Team& team,
                      Control& control, const FlowObserver& observer = {});

}  // namespace reluflow
