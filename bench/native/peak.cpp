#include "peak.hpp"

#include <time.h>

#include <algorithm>

#include "reluflow/panels.hpp"

namespace {

using reluflow::kLanes;
using reluflow::Packet;

// Independent sums, enough of them to hide the latency of one.
constexpr int kSums = 12;
constexpr long kRounds = 500'000;
constexpr int kRepeats = 5;
constexpr double kSpinOperations = 2.0 * kSums * kLanes * kRounds;

void spin(long rounds, double factor, double summand) {
  const Packet a = Eigen::internal::pset1<Packet>(factor);
  const Packet b = Eigen::internal::pset1<Packet>(summand);
  Packet sums[kSums];
  for (Packet& sum : sums) {
    sum = b;
    // Or the compiler would see that all sums are one.
    benchmark::DoNotOptimize(sum);
  }
  for (long i = 0; i < rounds; ++i) {
    for (Packet& sum : sums) sum = Eigen::internal::pmadd(sum, a, b);
  }
  for (Packet& sum : sums) benchmark::DoNotOptimize(sum);
}

void fma_peak(benchmark::State& state) {
  const Stopwatch watch(1);
  for (auto _ : state) spin(kRounds, 0.5, 1.0);
  count_operations(state, kSpinOperations, watch.seconds());
}
BENCHMARK(fma_peak);

}  // namespace

Stopwatch::Stopwatch(int threads)
    : clock_(threads > 1 ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID), start_(now()) {}

double Stopwatch::now() const {
  timespec time;
  clock_gettime(clock_, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double measure_peak() {
  double best = 0.0;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const Stopwatch watch(1);
    spin(kRounds, 0.5, 1.0);
    best = std::max(best, kSpinOperations / watch.seconds());
  }
  return best;
}

void count_operations(benchmark::State& state, double operations, double seconds, int cores) {
  const double rate = operations * static_cast<double>(state.iterations()) / seconds;
  state.counters["GFLOP/s"] = 1e-9 * rate;
  state.counters["of_peak"] = rate / (measure_peak() * cores);
}
