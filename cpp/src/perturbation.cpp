#include "reluflow/perturbation.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "reluflow/certificate.hpp"
#include "reluflow/local_search.hpp"
#include "reluflow/parallel.hpp"
#include "reluflow/rounding.hpp"

namespace reluflow {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kRootRounds = 12;
// Relative gap at which there is nothing left to search for.
constexpr double kClosed = 1e-8;
// Relative error up to which `rows` stand for the weights.
constexpr double kRowRounding = 1e-13;
// Of N relative to its terms; a hundred times what the projections leave.
constexpr double kStrictness = 1e-9;
// Above this many opposing neurons their subsets are not enumerated.
constexpr std::size_t kMostEnumerated = 10;

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

/// One point: bounds that only ever get better.
struct PointState {
  double radius = kInfinity;
  double lower_bound = 0.0;
  Vector coefficients;
  Subset subset;
  Proof proof = Proof::none;
  Index nodes = 0;
};

/// "N < 0" as "N + margin <= 0" for a margin that no rounding error reaches: where the network is
/// zero on a whole region, that region does not count as flipped.
double strictness_margin(const PointProblem& problem) {
  const Vector weights = problem.side.output.cwiseAbs();
  double scale = std::abs(problem.constant) + weights.dot(problem.preactivations.cwiseAbs());
  if (scale == 0.0) scale = weights.dot(problem.neurons.norms);
  return kStrictness * (scale > 0.0 ? scale : 1.0);
}

PointProblem with_margin(PointProblem problem, double margin) {
  problem.constant += margin;
  return problem;
}

class PointSolver {
 public:
  PointSolver(const PointProblem& problem, const PerturbationOptions& options, double slack,
              PointState& state)
      : problem_(problem),
        options_(options),
        slack_(slack),
        state_(state),
        searched_(with_margin(problem, strict() ? strictness_margin(problem) : 0.0)),
        search_(searched_) {}

  /// Cheap bounds: the crossing along the gradient, and how fast the output can fall at most.
  void bracket(double lipschitz) {
    const double value = problem_.value();
    if (strict() ? value < 0.0 : value <= 0.0) {
      state_.radius = 0.0;
      state_.proof = Proof::already_flipped;
      return;
    }
    const double rounding = gamma(problem_.neurons.size() + 8) *
                            (std::abs(problem_.constant) + problem_.side.output.cwiseAbs().dot(
                                                               problem_.preactivations.cwiseAbs()));
    state_.lower_bound = std::max(neuronwise_lower_bound(problem_, slack_),
                                  std::max(0.0, value - slack_ - rounding) / lipschitz);
    follow_gradient();
    state_.lower_bound = std::min(state_.radius, state_.lower_bound);
  }

  /// Searches from the cheap starts, and from all others where those do not close the gap.
  void search(const Matrix& targets) {
    search_along_gradients(searched_, search_);
    adopt();
    certify();
    if (state_.lower_bound < (1.0 - kClosed) * state_.radius) {
      search_widely(searched_, targets, search_);
      if (!search_.found()) enumerate();
      adopt();
      certify();
    }
  }

  void prove(StopFlag& stop) {
    if (state_.proof != Proof::none || !std::isfinite(state_.radius)) return;
    Intervals intervals = ball_intervals(problem_, state_.radius);
    raise(tighten(problem_, state_.radius, enough(), slack(), kRootRounds, intervals).lower_bound);
    if (settle(Proof::relaxation)) return;
    try_certificate(intervals);
    if (settle(Proof::certificate)) return;
    try_branching(std::move(intervals), stop);
    settle(Proof::branching);
  }

 private:
  bool strict() const { return options_.flip == Flip::strict; }

  /// How far outputs may be off up to the radius, over which the rounding of the rows adds up.
  double slack() const {
    return slack_ + kRowRounding * state_.radius *
                        problem_.side.output.cwiseAbs().dot(problem_.neurons.norms);
  }

  double enough() const { return (1.0 - options_.rtol) * state_.radius; }

  void raise(double lower_bound) {
    state_.lower_bound = std::min(state_.radius, std::max(state_.lower_bound, lower_bound));
  }

  bool settle(Proof proof) {
    state_.lower_bound = std::min(state_.radius, state_.lower_bound);
    if (state_.proof == Proof::none && std::isfinite(state_.radius) &&
        state_.lower_bound >= enough()) {
      state_.proof = proof;
    }
    return state_.proof != Proof::none;
  }

  void follow_gradient() {
    const Vector active = (problem_.preactivations.array() > 0.0)
                              .select(problem_.side.output, Vector::Zero(problem_.neurons.size()));
    const Vector normal = problem_.neurons.rows.transpose() * active;
    const Vector slopes = -(problem_.neurons.rows * normal);
    const Ray ray{problem_.preactivations, slopes, problem_.side.output, problem_.constant};
    const double t = first_crossing(ray, options_.flip);
    if (!std::isfinite(t)) return;
    state_.radius = t * normal.norm();
    state_.coefficients = -t * active;
    state_.subset = active_subset(problem_, problem_.preactivations + t * slopes);
  }

  /// Takes over the best piece of the search, projected without the margin.
  void adopt() {
    if (!search_.found()) return;
    const ProjectionOptions from{1e-13, kInfinity, 600, &search_.best().multipliers};
    const Projection exact =
        strict() ? project(problem_, piece_of(problem_, search_.best_subset()), from)
                 : search_.best();
    if (best_.coefficients.size() > 0 && exact.distance >= state_.radius) return;
    state_.radius = exact.distance;
    state_.coefficients = exact.coefficients;
    state_.subset = search_.best_subset();
    best_ = exact;
  }

  void certify() {
    if (state_.radius == certified_radius_ || !std::isfinite(state_.radius)) return;
    certified_radius_ = state_.radius;
    // A proof of a larger radius stands no more.
    state_.proof = Proof::none;
    if (settle(Proof::neuronwise)) return;
    try_certificate(ball_intervals(problem_, state_.radius));
    settle(Proof::certificate);
  }

  void try_certificate(const Intervals& intervals) {
    if (best_.coefficients.size() == 0) return;
    const ShorMultipliers multipliers = closed_form_multipliers(problem_, intervals, best_);
    const Vector centre = -best_.scale * (problem_.neurons.rows.transpose() * best_.multipliers);
    raise(shor_lower_bound(problem_, intervals, multipliers, centre, slack()));
  }

  void try_branching(Intervals intervals, StopFlag& stop) {
    const BranchingOptions options{options_.rtol, slack(), options_.max_nodes, strict(),
                                   [&stop] { return stop(); }};
    const Incumbent incumbent = [this](const Subset& subset) {
      search_.from_subset(subset);
      adopt();
      return state_.radius;
    };
    const BranchingResult result =
        branch(problem_, std::move(intervals), state_.radius, options, incumbent);
    state_.nodes = result.nodes;
    raise(result.lower_bound);
  }

  /// Looks at every piece when no start led anywhere.
  void enumerate() {
    const auto& opposing = problem_.side.opposing;
    if (opposing.size() > kMostEnumerated) return;
    bool all_empty = true;
    for (std::size_t code = 0; code < std::size_t{1} << opposing.size(); ++code) {
      Subset subset(static_cast<std::size_t>(problem_.neurons.size()), 0);
      for (std::size_t i = 0; i < opposing.size(); ++i) {
        subset[static_cast<std::size_t>(opposing[i])] = (code >> i) & 1;
      }
      const Projection projection = project(searched_, piece_of(searched_, subset));
      all_empty &= projection.empty;
      if (std::isfinite(projection.distance)) search_.from_subset(subset);
    }
    if (!all_empty) return;
    state_.radius = state_.lower_bound = kInfinity;
    state_.proof = Proof::never_flips;
  }

  const PointProblem& problem_;
  const PerturbationOptions& options_;
  double slack_;
  PointState& state_;
  PointProblem searched_;
  LocalSearch search_;
  Projection best_;  // of the exact problem
  double certified_radius_ = kInfinity;
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

PerturbationOutcome collect(const std::vector<PointState>& states, Index width) {
  const auto n = static_cast<Index>(states.size());
  PerturbationOutcome outcome{Vector(n), Vector(n), Matrix::Zero(n, width), {}, {}, {}};
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
  const auto problem_of = [&](Index i) {
    return shared.problem(points.preactivations.row(i), points.labels[i]);
  };
  parallel_for(n, options.num_threads, nullptr, [&](Index i) {
    const PointProblem problem = problem_of(i);
    PointSolver(problem, options, points.slack[i], states[static_cast<std::size_t>(i)])
        .bracket(lipschitz);
  });
  StopFlag stop(control);
  parallel_for(n, options.num_threads, &control, [&](Index i) {
    PointState& state = states[static_cast<std::size_t>(i)];
    if (state.proof != Proof::none) return;
    const PointProblem problem = problem_of(i);
    PointSolver solver(problem, options, points.slack[i], state);
    solver.search(targets_of(points, i));
    solver.prove(stop);
  });
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
