#pragma once

#include <functional>
#include <vector>

#include "reluflow/flow.hpp"
#include "reluflow/two_layer.hpp"

namespace reluflow {

/// A network, and the examples that it is trained on.
struct FlowProblem {
  Network initial;
  MatrixView inputs;
  VectorView labels;
  bool gram_form;  ///< which form of the objective is the cheaper one
  /// Of the examples, with the bias feature where it is trained; without rows where it is unknown.
  MatrixView gram_matrix{nullptr, 0, 0};
};

/// How it is trained.
struct FlowSetup {
  MarginLoss loss;
  Trained trained;
  double kink_ramp;
  FlowOptions options;
};

struct TrainedNetwork {
  FlowOutcome flow;
  Network network;
  double seconds;
};

/// Threads that a flow of this problem can use: one where every loop of a gradient is too short to
/// be shared.
int useful_threads(const FlowProblem& problem, int num_threads);

/// One flow; the team shares the work of every step.
TrainedNetwork follow_flow(const FlowProblem& problem, const FlowSetup& setup, Team& team,
                           Control& control, const FlowObserver& observer = {});

/// Many flows, each on one of up to `num_threads` threads, the largest problems first: every result
/// is bit for bit that of `follow_flow`. The calling thread asks `interrupted` some times a second
/// and hands the number of finished flows to `progress`, also while it waits for the others. Flows
/// that are stopped, by it or by `max_seconds` for all together, end where they are.
std::vector<TrainedNetwork> follow_flows(const std::vector<FlowProblem>& problems,
                                         const FlowSetup& setup, int num_threads,
                                         double max_seconds,
                                         const std::function<bool()>& interrupted,
                                         const std::function<void(Index)>& progress = {});

}  // namespace reluflow
