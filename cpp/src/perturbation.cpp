#include "reluflow/perturbation.hpp"

#include <atomic>
#include <functional>
#include <limits>
#include <memory>
#include <utility>

#include "point_solver.hpp"
#include "reluflow/parallel.hpp"

namespace reluflow {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Points whose trees are kept at a time, for threads to share the nodes of those that need many.
constexpr Index kPointsAtOnce = 256;

/// Asked by all threads, answered by the one that may ask `control`.
class StopFlag {
 public:
  explicit StopFlag(Control& control) : control_(control) {}
  bool operator()() {
    if (!raised_ && on_calling_thread() && control_.stop()) raised_ = true;
    return raised_;
  }

 private:
  Control& control_;
  std::atomic<bool> raised_{false};
};

/// What the points of one call share.
struct Shared {
  Shared(const MatrixView& rows, const VectorView& output, double constant, int num_threads)
      : neurons(rows, num_threads),
        positive(output, constant, 1.0),
        negative(output, constant, -1.0) {}

  PointProblem problem(const Vector& preactivations, double label) const {
    const SignedOutput& side = label > 0.0 ? positive : negative;
    return {neurons, side, preactivations, side.constant};
  }

  Neurons neurons;
  SignedOutput positive, negative;
};

/// One point, and what works on it.
struct Task {
  Task(PointProblem point, const PerturbationOptions& options, double slack, PointState& state)
      : problem(std::move(point)), solver(problem, options, slack, state) {}

  PointProblem problem;
  PointSolver solver;
};

Matrix targets_of(const PointSet& points, Index i) {
  const auto order = points.target_order.row(i);
  const Index count = (order.array() >= 0).count();
  Matrix targets(count, points.preactivations.cols());
  Index row = 0;
  for (Index t = 0; t < order.size(); ++t) {
    if (order[t] >= 0) targets.row(row++) = points.targets.row(order[t]);
  }
  return targets;
}

ProofSteps flatten(const std::vector<PointState>& states) {
  ProofSteps flat;
  std::vector<double> radius, eta, multiplier, slope;
  flat.first.push_back(0);
  for (std::size_t i = 0; i < states.size(); ++i) {
    for (const ProofStep& step : states[i].trail.steps()) {
      flat.point.push_back(static_cast<Index>(i));
      flat.kind.push_back(static_cast<Index>(step.kind));
      flat.node.push_back(step.node);
      flat.neuron.push_back(step.neuron);
      flat.child.push_back(step.child);
      radius.push_back(step.radius);
      eta.push_back(step.eta);
      for (Index j = 0; j < step.multipliers.size(); ++j) {
        if (step.multipliers[j] == 0.0) continue;
        flat.multiplier_neuron.push_back(j);
        multiplier.push_back(step.multipliers[j]);
        slope.push_back(step.slopes.size() > 0 ? step.slopes[j] : 0.0);
      }
      flat.first.push_back(static_cast<Index>(multiplier.size()));
    }
  }
  const auto vector = [](const std::vector<double>& values) -> Vector {
    return VectorView(values.data(), static_cast<Index>(values.size()));
  };
  flat.radius = vector(radius);
  flat.eta = vector(eta);
  flat.multiplier = vector(multiplier);
  flat.slope = vector(slope);
  return flat;
}

PerturbationOutcome collect(const std::vector<PointState>& states, Index width) {
  const auto n = static_cast<Index>(states.size());
  PerturbationOutcome outcome{Vector(n), Vector(n), Matrix::Zero(n, width), {}, {}, {}};
  outcome.steps = flatten(states);
  for (Index i = 0; i < n; ++i) {
    const PointState& state = states[static_cast<std::size_t>(i)];
    outcome.radius[i] = state.radius;
    outcome.lower_bound[i] = state.lower_bound;
    if (state.coefficients.size() > 0) outcome.coefficients.row(i) = state.coefficients;
    outcome.subsets.push_back(state.subset);
    outcome.subsets.back().resize(static_cast<std::size_t>(width), 0);
    outcome.proofs.push_back(state.proof);
    outcome.nodes.push_back(state.nodes);
  }
  return outcome;
}

}  // namespace

PerturbationOutcome min_perturbations(const MatrixView& rows, const VectorView& output,
                                      double constant, double lipschitz, const PointSet& points,
                                      const PerturbationOptions& options, Control& control) {
  const Index n = points.preactivations.rows(), width = rows.rows();
  const Shared shared(rows, output, constant, options.num_threads);
  std::vector<PointState> states(static_cast<std::size_t>(n));
  for (PointState& state : states) state.trail = ProofTrail(options.keep_proofs);
  const auto problem_of = [&](Index i) {
    return shared.problem(points.preactivations.row(i), points.labels[i]);
  };
  parallel_for(n, options.num_threads, &control, [&](Index i) {
    const PointProblem problem = problem_of(i);
    PointSolver(problem, options, points.slack[i], states[static_cast<std::size_t>(i)])
        .bracket(lipschitz);
  });
  StopFlag flag(control);
  const std::function<bool()> stop = [&flag] { return flag(); };
  for (Index block = 0; block < block_count(n, kPointsAtOnce) && !stop(); ++block) {
    const Block points_here = block_at(block, n, kPointsAtOnce);
    std::vector<std::unique_ptr<Task>> unfinished(static_cast<std::size_t>(points_here.size));
    parallel_for(points_here.size, options.num_threads, &control, [&](Index place) {
      const Index i = points_here.begin + place;
      PointState& state = states[static_cast<std::size_t>(i)];
      if (state.proof != Proof::none) return;
      auto task = std::make_unique<Task>(problem_of(i), options, points.slack[i], state);
      task->solver.search(targets_of(points, i));
      task->solver.prove(stop);
      if (task->solver.unfinished()) {
        unfinished[static_cast<std::size_t>(place)] = std::move(task);
      }
    });
    for (std::unique_ptr<Task>& task : unfinished) {
      if (task && !stop()) task->solver.branch_on(options.num_threads, stop);
      task.reset();
    }
  }
  PerturbationOutcome outcome = collect(states, width);
  outcome.stopped = control.reason();
  return outcome;
}

SubsetProjections subset_projections(const MatrixView& rows, const VectorView& output,
                                     double constant, const MatrixView& preactivations,
                                     const VectorView& labels, const MatrixView& subsets,
                                     int num_threads, Control* control) {
  const Index n = preactivations.rows(), width = rows.rows();
  const Shared shared(rows, output, constant, num_threads);
  SubsetProjections result{Vector::Constant(n, kInfinity), Vector::Zero(n), Matrix::Zero(n, width)};
  parallel_for(n, num_threads, control, [&](Index i) {
    const PointProblem problem = shared.problem(preactivations.row(i), labels[i]);
    Subset subset(static_cast<std::size_t>(width));
    for (Index j = 0; j < width; ++j) subset[static_cast<std::size_t>(j)] = subsets(i, j) != 0.0;
    const Projection projection = project(problem, piece_of(problem, subset));
    result.distance[i] = projection.distance;
    result.lower_bound[i] = projection.lower_bound;
    if (projection.coefficients.size() > 0) result.coefficients.row(i) = projection.coefficients;
  });
  return result;
}

}  // namespace reluflow
