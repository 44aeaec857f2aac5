#include "reluflow/training.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "reluflow/parallel.hpp"

namespace reluflow {
namespace {

/// Operations of a gradient.
double cost(const FlowProblem& problem) {
  const auto n = static_cast<double>(problem.inputs.rows());
  const auto d = static_cast<double>(problem.inputs.cols());
  const auto m = static_cast<double>(problem.initial.output.size());
  return problem.gram_form ? 2 * n * n * m : 4 * n * d * m;
}

std::vector<std::size_t> largest_first(const std::vector<FlowProblem>& problems) {
  std::vector<std::size_t> order(problems.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return cost(problems[a]) > cost(problems[b]);
  });
  return order;
}

/// Flows handed out one by one to the threads of a parallel region.
class Ensemble {
 public:
  Ensemble(const std::vector<FlowProblem>& problems, const FlowSetup& setup, double max_seconds,
           const std::function<bool()>& interrupted, const std::function<void(Index)>& progress)
      : problems_(problems),
        setup_(setup),
        max_seconds_(max_seconds),
        interrupted_(interrupted),
        progress_(progress),
        order_(largest_first(problems)),
        results_(problems.size()) {}

  /// What every thread does.
  void work() {
    const bool calling = on_calling_thread();
    Control control(max_seconds_ - clock_.seconds(),
                    [this, calling] { return calling ? poll() : stopped_.load(); });
    Team alone;
    for (std::size_t i = next_++; i < order_.size(); i = next_++) {
      follow(order_[i], alone, control);
      ++done_;
    }
    constexpr auto kNap = std::chrono::milliseconds(5);
    while (calling && done_ < order_.size()) {
      std::this_thread::sleep_for(kNap);
      if (clock_.seconds() >= next_poll_) poll();
    }
  }

  std::vector<TrainedNetwork> finish() {
    if (failure_) std::rethrow_exception(failure_);
    if (progress_) progress_(static_cast<Index>(done_.load()));
    return std::move(results_);
  }

 private:
  void follow(std::size_t problem, Team& team, Control& control) {
    guarded([&] { results_[problem] = follow_flow(problems_[problem], setup_, team, control); });
  }

  /// Calls body; what it throws is kept, because it must not leave the parallel region.
  template <class Body>
  void guarded(const Body& body) {
    try {
      body();
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      stopped_ = true;
    }
  }

  bool poll() {
    next_poll_ = clock_.seconds() + 0.05;
    guarded([&] {
      if (progress_) progress_(static_cast<Index>(done_.load()));
      if (interrupted_ && interrupted_()) stopped_ = true;
    });
    return stopped_;
  }

  const std::vector<FlowProblem>& problems_;
  const FlowSetup& setup_;
  double max_seconds_;
  const std::function<bool()>& interrupted_;
  const std::function<void(Index)>& progress_;
  std::vector<std::size_t> order_;
  std::vector<TrainedNetwork> results_;
  Control clock_;
  double next_poll_ = 0.0;  // of the calling thread
  std::atomic<std::size_t> next_{0};
  std::atomic<std::size_t> done_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::exception_ptr failure_;
};

}  // namespace

int useful_threads(const FlowProblem& problem, int num_threads) {
  return cost(problem) < Team::kSerialWork ? 1 : num_threads;
}

TrainedNetwork follow_flow(const FlowProblem& problem, const FlowSetup& setup, Team& team,
                           Control& control, const FlowObserver& observer) {
  const double start = control.seconds();
  TrainedNetwork result;
  const auto& [initial, inputs, labels, gram_form, gram] = problem;
  if (gram_form) {
    GramObjective objective(inputs, labels, gram, initial, setup.loss, setup.trained, team,
                            &control);
    objective.set_kink_ramp(setup.kink_ramp);
    Vector theta = objective.start();
    result.flow = integrate(objective, theta, setup.options, team, control, observer);
    result.network = objective.unpack(theta);
  } else {
    PrimalObjective objective(inputs, labels, initial.output.size(), setup.loss, setup.trained,
                              team, &control);
    objective.set_kink_ramp(setup.kink_ramp);
    Vector theta = objective.pack(initial);
    result.flow = integrate(objective, theta, setup.options, team, control, observer);
    result.network = objective.unpack(theta);
  }
  result.seconds = control.seconds() - start;
  return result;
}

std::vector<TrainedNetwork> follow_flows(const std::vector<FlowProblem>& problems,
                                         const FlowSetup& setup, int num_threads,
                                         double max_seconds,
                                         const std::function<bool()>& interrupted,
                                         const std::function<void(Index)>& progress) {
  Ensemble ensemble(problems, setup, max_seconds, interrupted, progress);
#ifdef _OPENMP
  const auto threads = static_cast<int>(
      std::min<std::size_t>(static_cast<std::size_t>(num_threads), problems.size()));
#pragma omp parallel num_threads(threads) if (threads > 1)
  ensemble.work();
#else
  (void)num_threads;
  ensemble.work();
#endif
  return ensemble.finish();
}

}  // namespace reluflow
