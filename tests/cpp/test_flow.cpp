#include <cmath>

#include "check.hpp"
#include "reluflow/flow.hpp"
#include "reluflow/two_layer.hpp"

using namespace reluflow;

namespace {

struct ClosedForm {
  Matrix inputs;
  Vector labels;
  Network network;
};

// Two orthogonal examples of norm R, one a label, and one neuron a label that is parallel to its
// example and balanced, |v| = ||w|| = s. By symmetry v' = p v R with p = 1/2 for either, so
// v(tau) = s exp(R tau / 2), both margins are v^2 R, and log(1/L) = v^2 R.
ClosedForm closed_form(double R, double s) {
  ClosedForm problem;
  problem.inputs = Matrix::Zero(2, 3);
  problem.inputs(0, 0) = problem.inputs(1, 1) = R;
  problem.labels = Vector(2);
  problem.labels << 1, -1;
  problem.network = {Matrix::Zero(2, 3), Vector::Zero(2), Vector(2)};
  problem.network.weights(0, 0) = problem.network.weights(1, 1) = s;
  problem.network.output << s, -s;
  return problem;
}

template <class Check>
void follow(bool gram, const FlowOptions& options, const Check& check) {
  const ClosedForm p = closed_form(2.0, 0.1);
  const MatrixView x(p.inputs.data(), 2, 3);
  const VectorView y(p.labels.data(), 2);
  Control control;
  const Trained trained{true, false};
  Team team;
  if (gram) {
    GramObjective objective(x, y, MatrixView(nullptr, 0, 0), p.network, Loss::exponential, trained,
                            team, &control);
    Vector theta = objective.start();
    const FlowOutcome outcome = integrate(objective, theta, options, team, control);
    check(outcome, objective.unpack(theta));
  } else {
    PrimalObjective objective(x, y, 2, Loss::exponential, trained, team, &control);
    Vector theta = objective.pack(p.network);
    const FlowOutcome outcome = integrate(objective, theta, options, team, control);
    check(outcome, objective.unpack(theta));
  }
}

}  // namespace

TEST_CASE(flow_follows_the_closed_form) {
  for (const bool gram : {false, true}) {
    follow(gram, {50.0, 1e-6}, [](const FlowOutcome& outcome, const Network& net) {
      const FlowPoint& last = outcome.trajectory.back();
      const double v = 0.1 * std::exp(2.0 * last.rescaled_time / 2);
      CHECK(outcome.status == FlowStatus::converged);
      CHECK(last.log_inverse_loss >= 50.0);
      CHECK(std::abs(net.output[0] / v - 1) < 1e-4);
      CHECK(std::abs(last.log_inverse_loss / (v * v * 2.0) - 1) < 2e-4);
    });
  }
}

TEST_CASE(flow_honours_its_budgets) {
  follow(true, {1e100, 1e-2, 100.0}, [](const FlowOutcome& outcome, const Network&) {
    CHECK(outcome.status == FlowStatus::max_evaluations);
    CHECK(outcome.trajectory.back().evaluations <= 100.0);
  });
}

TEST_CASE(stabilised_flow_follows_the_closed_form) {
  for (const bool gram : {false, true}) {
    FlowOptions options{50.0, 1e-6};
    options.method = FlowMethod::rkc2;
    follow(gram, options, [](const FlowOutcome& outcome, const Network& net) {
      const FlowPoint& last = outcome.trajectory.back();
      const double v = 0.1 * std::exp(2.0 * last.rescaled_time / 2);
      CHECK(outcome.status == FlowStatus::converged);
      CHECK(std::abs(net.output[0] / v - 1) < 1e-3);
    });
  }
}

TEST_CASE(log_loss_survives_huge_margins) {
  Vector margins(3), weights;
  margins << 1e100, 2e100, 1e100;
  for (const Loss loss : {Loss::exponential, Loss::logistic}) {
    CHECK(log_loss_weights(loss, margins, weights) == -1e100);
    CHECK(std::abs(weights[0] - 0.5) < 1e-15);
    CHECK(weights[1] == 0.0);
  }
}
