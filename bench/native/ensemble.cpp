// Steps of many small flows at once, each flow on one thread.
#include <benchmark/benchmark.h>

#include "examples.hpp"
#include "peak.hpp"
#include "reluflow/training.hpp"

using namespace reluflow;

namespace {

constexpr int kRuns = 64;
constexpr Index kExamples = 100, kDim = 160, kWidth = 50;
constexpr double kGradients = 61;

void ensemble(benchmark::State& state) {
  const bool gram = state.range(0) != 0;
  const int threads = static_cast<int>(state.range(1));
  std::vector<Examples> drawn;
  std::vector<FlowProblem> problems;
  for (std::uint64_t seed = 0; seed < kRuns; ++seed) {
    drawn.push_back(random_examples(kExamples, kDim, kWidth, seed));
  }
  for (const Examples& one : drawn) problems.push_back({one.network, one.x(), one.y(), gram});
  FlowOptions options;
  options.log_inverse_loss = 1e100;
  options.max_evaluations = kGradients;
  const FlowSetup setup{Loss::exponential, {}, 0.0, options};
  const Stopwatch watch(threads);
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        follow_flows(problems, setup, threads, std::numeric_limits<double>::infinity(), {}));
  }
  const double seconds = watch.seconds();
  const double side = static_cast<double>(gram ? kExamples : 2 * (kDim + 1));
  const double gradient = 2.0 * side * static_cast<double>(kExamples * kWidth);
  count_operations(state, kRuns * kGradients * gradient, seconds, threads);
  state.counters["us_a_gradient"] =
      1e6 * seconds / (kRuns * kGradients * static_cast<double>(state.iterations()));
}
BENCHMARK(ensemble)
    ->ArgNames({"gram", "threads"})
    ->ArgsProduct({{0, 1}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
