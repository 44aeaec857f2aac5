#pragma once

#include <benchmark/benchmark.h>

/// Seconds since it was made: of this thread's processor where it works alone, which other programs
/// do not disturb, of the wall clock where several threads work.
class Stopwatch {
 public:
  explicit Stopwatch(int threads);
  double seconds() const { return now() - start_; }

 private:
  double now() const;

  int clock_;
  double start_;
};

/// Multiply-adds of one core in registers, in operations a second of processor time: a
/// multiply-add is two. With the vectors, and the fused operation where there is one, of the
/// instruction set that this file is compiled for.
double measure_peak();

/// Adds to the results of a benchmark its operations a second and their share of the peak of so
/// many cores, which is measured here and now. `operations` are those of one iteration, `seconds`
/// of all.
void count_operations(benchmark::State& state, double operations, double seconds, int cores = 1);
