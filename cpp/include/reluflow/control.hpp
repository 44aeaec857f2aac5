#pragma once

#include <chrono>
#include <functional>
#include <limits>

namespace reluflow {

/// Why a kernel was asked to stop early.
enum class StopReason { none, interrupted, deadline };

/// Lets the caller stop a running kernel. Only the thread that called the kernel may ask `stop()`;
/// the answer is sticky, and `interrupted` is consulted at most twenty times a second.
class Control {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Control(double max_seconds = std::numeric_limits<double>::infinity(),
                   std::function<bool()> interrupted = {})
      : interrupted_(std::move(interrupted)), start_(Clock::now()), max_seconds_(max_seconds) {}

  bool stop() {
    if (reason_ != StopReason::none) return true;
    const double now = seconds();
    if (now >= max_seconds_) {
      reason_ = StopReason::deadline;
    } else if (interrupted_ && now >= next_poll_) {
      next_poll_ = now + 0.05;
      if (interrupted_()) reason_ = StopReason::interrupted;
    }
    return reason_ != StopReason::none;
  }

  StopReason reason() const { return reason_; }
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  std::function<bool()> interrupted_;
  Clock::time_point start_;
  double max_seconds_;
  double next_poll_ = 0.05;
  StopReason reason_ = StopReason::none;
};

}  // namespace reluflow
