#include "reluflow/flow.hpp"

#include <algorithm>
#include <cmath>

#include "bogacki_shampine.hpp"

namespace reluflow {
namespace {

constexpr double kFirstRelativeMove = 0.01;
constexpr double kSafety = 0.9;
constexpr double kLargestGrowth = 5.0;
constexpr double kLargestShrink = 0.2;
constexpr double kRecordsPerDecade = 10.0;
constexpr double kObserverPeriod = 0.1;

// An example is stuck when nothing else is left to learn: the others carry this share of -grad.
constexpr double kNegligibleWeight = 1e-6;
constexpr int kStepsBetweenStuckChecks = 16;

// A flow that has not moved over so many steps while an example is still on the wrong side.
constexpr int kStallWindow = 2000;
constexpr double kStallLossChange = 1e-6;
constexpr double kStallNormChange = 1e-3;

/// Proportional-integral step-size control (Hairer, Norsett & Wanner 1993, section II.4; the gains
/// 0.7 and 0.4 are Gustafsson's).
class StepController {
 public:
  double after_accepted(double h, double error) {
    const double exponent = 1.0 / BogackiShampine::kOrder;
    const double factor = kSafety * std::pow(std::max(error, 1e-10), -0.7 * exponent) *
                          std::pow(previous_error_, 0.4 * exponent);
    previous_error_ = std::max(error, 1e-4);
    return h * std::clamp(factor, kLargestShrink, kLargestGrowth);
  }

  double after_rejected(double h, double error) const {
    if (!std::isfinite(error)) return h * kLargestShrink;
    return h * std::max(kLargestShrink, kSafety * std::pow(error, -1.0 / BogackiShampine::kOrder));
  }

 private:
  double previous_error_ = 1.0;
};

/// Records a point whenever log(1/L) passes the next of its logarithmically spaced values.
class Recorder {
 public:
  void offer(const FlowPoint& point) {
    const double level = point.log_inverse_loss > 0.0
                             ? std::floor(std::log10(point.log_inverse_loss) * kRecordsPerDecade)
                             : -std::numeric_limits<double>::infinity();
    if (points_.empty() || level > level_) {
      points_.push_back(point);
      level_ = level;
    }
  }

  std::vector<FlowPoint> finish(const FlowPoint& last) {
    if (points_.empty() || points_.back().rescaled_time < last.rescaled_time) {
      points_.push_back(last);
    }
    return std::move(points_);
  }

 private:
  std::vector<FlowPoint> points_;
  double level_ = 0.0;
};

/// Notices a flow that stands still.
class StallDetector {
 public:
  bool stalled(double log_loss, double norm) {
    if (++steps_ < kStallWindow) return false;
    const bool still =
        log_loss_ - log_loss < kStallLossChange * std::max(1.0, std::abs(log_loss)) &&
        std::abs(std::log(norm / norm_)) < kStallNormChange;
    steps_ = 0;
    log_loss_ = log_loss;
    norm_ = norm;
    return still;
  }

 private:
  int steps_ = 0;
  double log_loss_ = std::numeric_limits<double>::infinity();
  double norm_ = 1.0;
};

/// True when `examples`, which no helpful neuron reaches, carry all of the remaining weight.
bool all_weight_on(const std::vector<Index>& examples, const Vector& weights) {
  double share = 0.0;
  for (const Index i : examples) share += weights[i];
  return share > (1.0 - kNegligibleWeight) * weights.sum();
}

/// A class is dead when none of its examples can be reached.
FlowStatus name_stuck(const std::vector<Index>& examples, const Vector& labels) {
  for (const Index first : examples) {
    Index reached = (labels.array() == labels[first]).count();
    for (const Index i : examples) reached -= labels[i] == labels[first];
    if (reached == 0) return FlowStatus::dead_class;
  }
  return FlowStatus::stuck_points;
}

/// The state of one integration, advanced step by step.
class Integration {
 public:
  Integration(Objective& objective, Vector& theta, const FlowOptions& options, Control& control,
              const FlowObserver& observer)
      : objective_(objective),
        theta_(theta),
        options_(options),
        control_(control),
        observer_(observer),
        buffers_(theta.size()) {}

  FlowOutcome run() {
    start();
    FlowStatus status = FlowStatus::converged;
    while (point_.log_inverse_loss < options_.log_inverse_loss) {
      if (!may_continue(status)) break;
      step();
    }
    return finish(status);
  }

 private:
  void start() {
    log_loss_ = objective_.evaluate(theta_, buffers_.velocities[0]);
    point_.evaluations = 1;
    margins_ = objective_.margins();
    norm_ = std::sqrt(objective_.squared_norm(theta_));
    const double speed = velocity_norm();
    h_ = speed > 0.0 ? kFirstRelativeMove * norm_ / speed : 0.0;
    note();
  }

  bool may_continue(FlowStatus& status) {
    if (control_.stop()) {
      status = control_.reason() == StopReason::deadline ? FlowStatus::max_seconds
                                                         : FlowStatus::interrupted;
      return false;
    }
    if (point_.evaluations + BogackiShampine::kEvaluationsPerStep > options_.max_evaluations) {
      status = FlowStatus::max_evaluations;
      return false;
    }
    return !(at_rest(status) || stuck(status) || underflowed(status));
  }

  /// Nothing moves at all: no example activates any neuron that could learn from it.
  bool at_rest(FlowStatus& status) {
    if (velocity_norm() > 0.0) return false;
    unreachable_ = objective_.unreachable();
    status = unreachable_.empty() ? FlowStatus::not_separable
                                  : name_stuck(unreachable_, objective_.labels());
    return true;
  }

  bool stuck(FlowStatus& status) {
    if (just_rejected_ || margins_.minCoeff() > 0.0) return false;
    const bool stalled = stall_.stalled(log_loss_, norm_);
    if (!stalled && accepted_ % kStepsBetweenStuckChecks != 0) return false;
    unreachable_ = objective_.unreachable();
    if (!unreachable_.empty() && (stalled || all_weight_on(unreachable_, objective_.weights()))) {
      status = name_stuck(unreachable_, objective_.labels());
      return true;
    }
    unreachable_.clear();
    if (stalled) status = FlowStatus::not_separable;
    return stalled;
  }

  bool underflowed(FlowStatus& status) {
    if (h_ * velocity_norm() > std::numeric_limits<double>::epsilon() * norm_) return false;
    status = FlowStatus::step_underflow;
    return true;
  }

  void step() {
    limit_step();
    const double log_loss = bogacki_shampine_step(objective_, theta_, h_, buffers_);
    if (control_.reason() != StopReason::none) return;  // a stopped evaluation is no evaluation
    point_.evaluations += BogackiShampine::kEvaluationsPerStep;
    const double end_norm = std::sqrt(objective_.squared_norm(buffers_.end));
    const double error = std::sqrt(objective_.squared_difference_norm(buffers_.error)) /
                         (options_.rtol * std::max(norm_, end_norm));
    // Where the flow slides along a kink, steps that end on its other side may raise log L a little.
    const bool rises = options_.descend && log_loss > log_loss_ + options_.rtol;
    just_rejected_ = rises || !(error <= 1.0 && std::isfinite(log_loss));
    if (just_rejected_) {
      ++rejected_;
      h_ = rises ? h_ / 2 : controller_.after_rejected(h_, error);
      return;
    }
    ++accepted_;
    theta_.swap(buffers_.end);
    buffers_.velocities[0].swap(buffers_.velocities[3]);
    log_loss_ = log_loss;
    norm_ = end_norm;
    margins_ = objective_.margins();
    point_.rescaled_time += h_;
    h_ = controller_.after_accepted(h_, error);
    note();
  }

  /// d log(1/L) / d tau = ||grad log L||^2, so a step aimed at the target lands just beyond it.
  void limit_step() {
    const double slope = objective_.squared_difference_norm(buffers_.velocities[0]);
    const double missing = options_.log_inverse_loss - point_.log_inverse_loss;
    constexpr double kOvershoot = 1.001;
    if (slope > 0.0) {
      h_ = std::min(
          {h_, kOvershoot * missing / slope, options_.largest_move * norm_ / std::sqrt(slope)});
    }
  }

  double velocity_norm() const {
    return std::sqrt(objective_.squared_difference_norm(buffers_.velocities[0]));
  }

  void note() {
    point_.log_inverse_loss = -log_loss_;
    point_.norm = norm_;
    point_.normalized_margin = objective_.normalized_margin(margins_.minCoeff(), norm_);
    recorder_.offer(point_);
    if (observer_ && control_.seconds() >= next_observation_) {
      next_observation_ = control_.seconds() + kObserverPeriod;
      observer_(point_);
    }
  }

  FlowOutcome finish(FlowStatus status) {
    if (observer_) observer_(point_);
    return {status,   recorder_.finish(point_),       std::move(unreachable_),
            margins_, static_cast<double>(accepted_), static_cast<double>(rejected_)};
  }

  Objective& objective_;
  Vector& theta_;
  const FlowOptions& options_;
  Control& control_;
  const FlowObserver& observer_;
  StepBuffers buffers_;
  StepController controller_;
  Recorder recorder_;
  StallDetector stall_;
  FlowPoint point_{};
  Vector margins_;
  std::vector<Index> unreachable_;
  double log_loss_ = 0.0;
  double norm_ = 0.0;
  double h_ = 0.0;
  double next_observation_ = 0.0;
  bool just_rejected_ = false;
  long accepted_ = 0;
  long rejected_ = 0;
};

}  // namespace

FlowOutcome integrate(Objective& objective, Vector& theta, const FlowOptions& options,
                      Control& control, const FlowObserver& observer) {
  return Integration(objective, theta, options, control, observer).run();
}

}  // namespace reluflow
