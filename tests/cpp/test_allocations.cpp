#include <atomic>
#include <cstddef>

#include "check.hpp"
#include "reluflow/two_layer.hpp"

#ifdef __GLIBC__

namespace {
std::atomic<long> allocations{0};
}

// Takes the place of the C library's, which operator new and Eigen call too.
extern "C" void* __libc_malloc(std::size_t size);
extern "C" void* malloc(std::size_t size) {
  ++allocations;
  return __libc_malloc(size);
}

using namespace reluflow;

namespace {

constexpr Index kExamples = 60, kDim = 40, kWidth = 50;

struct Start {
  Matrix inputs;
  Vector labels;
  Network network;
};

// Of the last neurons so many are copies of the first one, and so many inactive on all examples.
Start start(Index copies, Index dead) {
  Start made{Matrix(kExamples, kDim),
             Vector(kExamples),
             {Matrix(kWidth, kDim), Vector::Zero(kWidth), Vector(kWidth)}};
  for (Index i = 0; i < made.inputs.size(); ++i) {
    made.inputs.data()[i] = std::sin(static_cast<double>(7 * i + 1));
  }
  for (Index i = 0; i < kExamples; ++i) made.labels[i] = i % 2 == 0 ? 1.0 : -1.0;
  Network& net = made.network;
  for (Index i = 0; i < net.weights.size(); ++i) {
    net.weights.data()[i] = std::cos(static_cast<double>(11 * i + 3));
  }
  for (Index j = 0; j < kWidth; ++j) net.output[j] = j % 2 == 0 ? 0.1 : -0.2;
  for (Index j = kWidth - copies; j < kWidth; ++j) net.weights.row(j) = net.weights.row(0);
  net.bias.tail(dead).setConstant(-1e3);
  return made;
}

// Allocations of gradients after the first ones, which make room for what is needed.
long allocations_of(Objective& objective, const Vector& theta) {
  Vector velocity(objective.size());
  for (int warm = 0; warm < 3; ++warm) objective.evaluate(theta, velocity);
  const long before = allocations;
  for (int again = 0; again < 3; ++again) objective.evaluate(theta, velocity);
  return allocations - before;
}

void check_gradients(const Start& s) {
  const MatrixView inputs(s.inputs.data(), kExamples, kDim), unknown(nullptr, 0, 0);
  const VectorView labels(s.labels.data(), kExamples);
  Team team;
  Control control;
  PrimalObjective primal(inputs, labels, kWidth, Loss::exponential, {}, team, &control);
  CHECK(allocations_of(primal, primal.pack(s.network)) == 0);
  GramObjective gram(inputs, labels, unknown, s.network, Loss::exponential, {}, team, &control);
  CHECK(allocations_of(gram, gram.start()) == 0);
}

}  // namespace

TEST_CASE(allocations_are_counted) {
  const long before = allocations;
  const Vector made(1000);
  CHECK(made.size() == 1000 && allocations == before + 1);
}

TEST_CASE(a_gradient_allocates_nothing) { check_gradients(start(0, 0)); }

TEST_CASE(a_gradient_that_leaves_neurons_out_allocates_nothing) {
  check_gradients(start(30, 0));
  check_gradients(start(0, 30));
}

// So wide that the weights are made on their way into the product.
TEST_CASE(a_gradient_ahead_is_that_at_the_point_and_allocates_nothing) {
  constexpr Index kWide = 30'000, kFew = 5;
  CHECK(worth_streaming(Strips(Matrix::Zero(kFew, kDim + 1)), Panels(kWide)));
  Network net{Matrix(kWide, kDim), Vector::Zero(kWide), Vector(kWide)};
  for (Index i = 0; i < net.weights.size(); ++i) {
    net.weights.data()[i] = std::cos(static_cast<double>(11 * i + 3));
  }
  for (Index j = 0; j < kWide; ++j) net.output[j] = j % 2 == 0 ? 0.1 : -0.2;
  const Start s = start(0, 0);
  const MatrixView inputs(s.inputs.data(), kFew, kDim);
  const VectorView labels(s.labels.data(), kFew);
  Team team;
  Control control;
  PrimalObjective objective(inputs, labels, kWide, Loss::exponential, {}, team, &control);
  const Vector theta = objective.pack(net);
  Vector direction(theta.size()), room(theta.size()), ahead(theta.size()), there(theta.size());
  objective.evaluate(theta, direction);
  const double log_loss = objective.evaluate_ahead(theta, 0.25, direction, room, ahead, team);
  const long before = allocations;
  objective.evaluate_ahead(theta, 0.25, direction, room, ahead, team);
  CHECK(allocations == before);
  const Vector point = theta + 0.25 * direction;
  CHECK(objective.evaluate(point, there) == log_loss);
  CHECK((there.array() == ahead.array()).all());
}

#endif
