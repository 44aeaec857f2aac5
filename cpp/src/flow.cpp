#include "reluflow/flow.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

#include "bogacki_shampine.hpp"
#include "stabilised.hpp"

namespace reluflow {
namespace {

constexpr double kFirstRelativeMove = 0.01;
constexpr double kSafety = 0.9;
constexpr double kLargestGrowth = 5.0;
constexpr double kLargestShrink = 0.2;
// Of a step that is refused although its error is small: it raises a loss that never rises.
constexpr double kShrinkOfRefused = 0.5;
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
    const double exponent = 1.0 / Stepper::kErrorOrder;
    const double factor = kSafety * std::pow(std::max(error, 1e-10), -0.7 * exponent) *
                          std::pow(previous_error_, 0.4 * exponent);
    previous_error_ = std::max(error, 1e-4);
    return h * std::clamp(factor, kLargestShrink, kLargestGrowth);
  }

  double after_rejected(double h, double error) const {
    if (!std::isfinite(error)) return h * kLargestShrink;
    if (error <= 1.0) return h * kShrinkOfRefused;
    return h * std::max(kLargestShrink, kSafety * std::pow(error, -1.0 / Stepper::kErrorOrder));
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

/// Notices that the gradient of L has fallen to nothing, next to what it was.
class RestDetector {
 public:
  bool at_rest(double gradient, double norm) {
    const double relative = gradient / norm;
    largest_ = std::max(largest_, relative);
    return relative <= kStationary * largest_;
  }

 private:
  double largest_ = 0.0;
};

std::unique_ptr<Stepper> make_stepper(FlowMethod method, Objective& objective, Team& team,
                                      Control& control) {
  if (method == FlowMethod::rkc2) {
    return std::make_unique<RungeKuttaChebyshev>(objective, team, control);
  }
  return std::make_unique<BogackiShampine>(objective, team);
}

/// True when `examples`, which no helpful neuron reaches, carry all of the remaining weight.
bool all_weight_on(const std::vector<Index>& examples, const Vector& weights) {
  double share = 0.0;
  for (const Index i : examples) share += std::abs(weights[i]);
  return share > (1.0 - kNegligibleWeight) * weights.cwiseAbs().sum();
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
  Integration(Objective& objective, Vector& theta, const FlowOptions& options, Team& team,
              Control& control, const FlowObserver& observer)
      : objective_(objective),
        theta_(theta),
        options_(options),
        team_(team),
        control_(control),
        observer_(observer),
        stepper_(make_stepper(options.method, objective, team, control)) {}

  FlowOutcome run() {
    start();
    FlowStatus status = FlowStatus::converged;
    // Written so that a loss that could not be computed, nan, goes on to its reason.
    while (!(point_.log_inverse_loss >= options_.log_inverse_loss)) {
      if (!may_continue(status)) break;
      step();
    }
    return finish(status);
  }

 private:
  void start() {
    log_loss_ = objective_.evaluate(theta_, stepper_->velocity());
    point_.evaluations = 1;
    margins_ = objective_.margins();
    norm_ = std::sqrt(objective_.squared_norm(theta_));
    if (control_.reason() != StopReason::none) {  // a stopped evaluation is no evaluation
      point_.evaluations = 0;
      log_loss_ = std::numeric_limits<double>::quiet_NaN();
      margins_.setConstant(log_loss_);
    }
    speed_ = norm_of(stepper_->velocity());
    h_ = speed_ > 0.0 ? kFirstRelativeMove * norm_ / speed_ : 0.0;
    note();
  }

  bool may_continue(FlowStatus& status) {
    if (control_.stop()) {
      status = control_.reason() == StopReason::deadline ? FlowStatus::max_seconds
                                                         : FlowStatus::interrupted;
      return false;
    }
    if (at_rest(status) || stuck(status)) return false;
    if (!affordable(status)) return false;
    return !underflowed(status);
  }

  /// Readies the next step and sets its length, unless that exceeds the evaluations allowed.
  bool affordable(FlowStatus& status) {
    status = FlowStatus::max_evaluations;
    if (point_.evaluations + stepper_->evaluations_to_prepare() > options_.max_evaluations) {
      return false;
    }
    point_.evaluations += stepper_->prepare(theta_);
    limit_step();
    h_ = stepper_->longest(h_);
    if (point_.evaluations + stepper_->evaluations(h_) > options_.max_evaluations) return false;
    status = FlowStatus::converged;
    return true;
  }

  /// Nothing moves: no example activates any neuron that could learn from it, or L is minimal.
  bool at_rest(FlowStatus& status) {
    const bool minimal =
        objective_.comes_to_rest() && rest_.at_rest(std::exp(log_loss_) * speed_, norm_);
    if (speed_ > 0.0 && !minimal) return false;
    unreachable_ = objective_.unreachable();
    if (minimal && margins_.minCoeff() > 0.0) {
      unreachable_.clear();
      status = FlowStatus::stationary;
    } else {
      status = unreachable_.empty() ? FlowStatus::not_separable
                                    : name_stuck(unreachable_, objective_.labels());
    }
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
    if (h_ * speed_ > std::numeric_limits<double>::epsilon() * norm_) return false;
    status = FlowStatus::step_underflow;
    return true;
  }

  void step() {
    const double log_loss = stepper_->attempt(theta_, h_);
    if (control_.reason() != StopReason::none) return;  // a stopped evaluation is no evaluation
    point_.evaluations += stepper_->evaluations(h_);
    const double end_norm = std::sqrt(objective_.squared_norm(stepper_->end()));
    const double error = stepper_->error() / (options_.rtol * std::max(norm_, end_norm));
    just_rejected_ = !acceptable(error, log_loss);
    if (just_rejected_) {
      ++rejected_;
      h_ = controller_.after_rejected(h_, error);
      return;
    }
    ++accepted_;
    stepper_->accept(theta_);
    log_loss_ = log_loss;
    norm_ = end_norm;
    speed_ = norm_of(stepper_->velocity());
    margins_ = objective_.margins();
    point_.rescaled_time += h_;
    h_ = controller_.after_accepted(h_, error);
    note();
  }

  bool acceptable(double error, double log_loss) const {
    if (!(error <= 1.0)) return false;
    // L may be 0 where it has minimisers; there it also never rises, whatever the tolerance. Where
    // rounding leaves it as it is the gradient has to fall, or steps could go round in a circle.
    if (objective_.comes_to_rest()) {
      return log_loss < log_loss_ ||
             (log_loss == log_loss_ && norm_of(stepper_->end_velocity()) < speed_);
    }
    // Where the flow slides along a kink, steps that end on its other side may raise log L a
    // little.
    const bool rises = options_.descend && log_loss > log_loss_ + options_.rtol;
    return std::isfinite(log_loss) && !rises;
  }

  /// d log(1/L) / d tau = ||grad log L||^2, so a step aimed at the target lands just beyond it. At
  /// least a little beyond: where steps gain less than that, the target would never be passed.
  void limit_step() {
    const double slope = speed_ * speed_;
    const double target = options_.log_inverse_loss;
    const double missing = target - point_.log_inverse_loss;
    constexpr double kOvershoot = 1e-3, kLeastOvershoot = 1e-6;
    const double beyond = std::max(kOvershoot * missing, kLeastOvershoot * std::abs(target));
    if (slope > 0.0) {
      h_ = std::min({h_, (missing + beyond) / slope, options_.largest_move * norm_ / speed_});
    }
  }

  double norm_of(const Vector& velocity) const {
    return std::sqrt(squared_difference_norm(objective_, team_, velocity));
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
  Team& team_;
  Control& control_;
  const FlowObserver& observer_;
  std::unique_ptr<Stepper> stepper_;
  StepController controller_;
  Recorder recorder_;
  StallDetector stall_;
  RestDetector rest_;
  FlowPoint point_{};
  Vector margins_;
  std::vector<Index> unreachable_;
  double log_loss_ = 0.0;
  double norm_ = 0.0;
  double speed_ = 0.0;  // norm of the velocity
  double h_ = 0.0;
  double next_observation_ = 0.0;
  bool just_rejected_ = false;
  long accepted_ = 0;
  long rejected_ = 0;
};

}  // namespace

FlowOutcome integrate(Objective& objective, Vector& theta, const FlowOptions& options, Team& team,
                      Control& control, const FlowObserver& observer) {
  return Integration(objective, theta, options, team, control, observer).run();
}

}  // namespace reluflow
