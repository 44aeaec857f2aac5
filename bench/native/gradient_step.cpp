// A gradient of the two-layer objective and an update, on the shapes n, d, m of
// bench.gradient_step.
#include <benchmark/benchmark.h>

#include "examples.hpp"
#include "peak.hpp"
#include "reluflow/memory.hpp"
#include "reluflow/two_layer.hpp"

using namespace reluflow;

namespace {

constexpr double kRate = 1e-6;

// Seconds of all gradients.
double follow(benchmark::State& state, Objective& objective, Vector& theta, int threads) {
  Vector velocity = large_vector(objective.size());
  const Stopwatch watch(threads);
  for (auto _ : state) {
    benchmark::DoNotOptimize(objective.evaluate(theta, velocity));
    theta += kRate * velocity;
  }
  return watch.seconds();
}

struct Shape {
  explicit Shape(const benchmark::State& state)
      : n(state.range(0)), d(state.range(1)), m(state.range(2)) {}
  Index n, d, m;
};

// Matrix products of a gradient, with the bias as one more feature.
double primal_operations(const Shape& s) {
  return 4.0 * static_cast<double>(s.n) * static_cast<double>(s.d + 1) * static_cast<double>(s.m);
}

double gram_operations(const Shape& s) {
  return 2.0 * static_cast<double>(s.n) * static_cast<double>(s.n) * static_cast<double>(s.m);
}

void primal_step(benchmark::State& state) {
  const Shape shape(state);
  const int threads = static_cast<int>(state.range(3));
  const Examples examples = random_examples(shape.n, shape.d, shape.m, 1);
  double seconds = 0.0;
  Team::run(threads, [&](Team& team) {
    Control control;
    PrimalObjective objective(examples.x(), examples.y(), shape.m, Loss::exponential, {}, team,
                              &control);
    Vector theta = objective.pack(examples.network);
    seconds = follow(state, objective, theta, threads);
  });
  count_operations(state, primal_operations(shape), seconds, threads);
}

void gram_step(benchmark::State& state) {
  const Shape shape(state);
  const int threads = static_cast<int>(state.range(3));
  const Examples examples = random_examples(shape.n, shape.d, shape.m, 1);
  double seconds = 0.0;
  Team::run(threads, [&](Team& team) {
    Control control;
    const MatrixView unknown(nullptr, 0, 0);
    GramObjective objective(examples.x(), examples.y(), unknown, examples.network,
                            Loss::exponential, {}, team, &control);
    Vector theta = objective.start();
    seconds = follow(state, objective, theta, threads);
  });
  count_operations(state, gram_operations(shape), seconds, threads);
}

void on_six_shapes(benchmark::internal::Benchmark* registered) {
  constexpr Index kShapes[][3] = {{200, 500, 50},     {500, 2000, 200}, {1000, 1000, 1000},
                                  {2000, 10000, 100}, {300, 300, 5000}, {100, 110, 20}};
  registered->ArgNames({"n", "d", "m", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const auto& [n, d, m] : kShapes) {
    for (const int threads : {1, 2}) registered->Args({n, d, m, threads});
  }
}
BENCHMARK(primal_step)->Apply(on_six_shapes);
BENCHMARK(gram_step)->Apply(on_six_shapes);

}  // namespace
