#include "point_solver.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "reluflow/rounding.hpp"

namespace reluflow {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kRootRounds = 12;
// Nodes that one thread looks at before threads share them: enough for most points, and few enough
// to leave no thread waiting for long.
constexpr Index kNodesAlone = 16;
// Relative gap at which there is nothing left to search for.
constexpr double kClosed = 1e-8;
// Relative error up to which `rows` stand for the weights.
constexpr double kRowRounding = 1e-13;
// Of N relative to its terms; a hundred times what the projections leave.
constexpr double kStrictness = 1e-9;
// Above this many opposing neurons their subsets are not enumerated.
constexpr std::size_t kMostEnumerated = 10;

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

}  // namespace

PointSolver::PointSolver(const PointProblem& problem, const PerturbationOptions& options,
                         double slack, PointState& state)
    : problem_(problem),
      options_(options),
      slack_(slack),
      state_(state),
      searched_(with_margin(problem, strict() ? strictness_margin(problem) : 0.0)),
      search_(searched_) {}

void PointSolver::bracket(double lipschitz) {
  const double value = problem_.value();
  if (strict() ? value < 0.0 : value <= 0.0) {
    state_.radius = 0.0;
    state_.proof = Proof::already_flipped;
    return;
  }
  const double rounding = gamma(problem_.neurons.size() + 8) *
                          (std::abs(problem_.constant) +
                           problem_.side.output.cwiseAbs().dot(problem_.preactivations.cwiseAbs()));
  state_.lower_bound = std::max(neuronwise_lower_bound(problem_, slack_),
                                std::max(0.0, value - slack_ - rounding) / lipschitz);
  follow_gradient();
  state_.lower_bound = std::min(state_.radius, state_.lower_bound);
}

void PointSolver::search(const Matrix& targets) {
  search_along_gradients(searched_, search_);
  adopt();
  certify();
  if (!std::isfinite(state_.radius) || state_.lower_bound < (1.0 - kClosed) * state_.radius) {
    search_widely(searched_, targets, search_);
    if (!search_.found()) enumerate();
    adopt();
    certify();
  }
}

void PointSolver::prove(const std::function<bool()>& stop) {
  if (state_.proof != Proof::none || !std::isfinite(state_.radius)) return;
  auto& trail = state_.trail;
  trail.enter(0, state_.radius);
  Intervals intervals = ball_intervals(problem_, state_.radius);
  raise(tighten(problem_, state_.radius, enough(), slack(), kRootRounds, intervals, trail)
            .lower_bound);
  if (settle(Proof::relaxation) || best_.coefficients.size() == 0) return;
  DualBound dual =
      dual_bound(problem_, best_, nullptr, state_.radius, enough(), slack(), intervals, trail);
  raise(dual.lower_bound);
  if (settle(Proof::dual) || options_.max_nodes == 0) return;
  plant({state_.radius, std::move(intervals), best_.preactivations, std::move(dual.multipliers)});
  branch(kNodesAlone, 1, stop);
}

void PointSolver::branch_on(int num_threads, const std::function<bool()>& stop) {
  branch(options_.max_nodes, num_threads, stop);
}

void PointSolver::plant(BranchingRoot root) {
  const BranchingOptions options{options_.rtol, slack(), strict()};
  const Incumbent incumbent = [this](const Subset& subset) {
    search_.from_subset(subset);
    adopt();
    return state_.radius;
  };
  tree_ =
      std::make_unique<BranchAndBound>(problem_, std::move(root), options, incumbent, state_.trail);
}

void PointSolver::branch(Index most, int num_threads, const std::function<bool()>& stop) {
  tree_->run(std::min(most, options_.max_nodes), num_threads, stop);
  state_.nodes = tree_->nodes();
  raise(tree_->lower_bound());
  settle(Proof::branching);
}

/// How far outputs may be off up to the radius, over which the rounding of the rows adds up.
double PointSolver::slack() const {
  return slack_ +
         kRowRounding * state_.radius * problem_.side.output.cwiseAbs().dot(problem_.neurons.norms);
}

void PointSolver::raise(double lower_bound) {
  state_.lower_bound = std::min(state_.radius, std::max(state_.lower_bound, lower_bound));
}

bool PointSolver::settle(Proof proof) {
  state_.lower_bound = std::min(state_.radius, state_.lower_bound);
  if (state_.proof == Proof::none && std::isfinite(state_.radius) &&
      state_.lower_bound >= enough()) {
    state_.proof = proof;
  }
  return state_.proof != Proof::none;
}

void PointSolver::follow_gradient() {
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
void PointSolver::adopt() {
  if (!search_.found()) return;
  const ProjectionOptions from{1e-13, kInfinity, 600, &search_.best().multipliers};
  const Projection exact = strict()
                               ? project(problem_, piece_of(problem_, search_.best_subset()), from)
                               : search_.best();
  if (!std::isfinite(exact.distance)) return;
  if (best_.coefficients.size() > 0 && exact.distance >= state_.radius) return;
  state_.radius = exact.distance;
  state_.coefficients = exact.coefficients;
  state_.subset = search_.best_subset();
  best_ = exact;
}

void PointSolver::certify() {
  if (best_.coefficients.size() == 0 || state_.radius == certified_radius_) return;
  certified_radius_ = state_.radius;
  // A proof of a larger radius stands no more.
  state_.proof = Proof::none;
  // What is cheap to find need not be cheap to show again.
  const bool settled = settle(Proof::neuronwise);
  if (settled && !state_.trail.wanted()) return;
  state_.trail.enter(0, state_.radius);
  const double bound = closed_form_bound(problem_, ball_intervals(problem_, state_.radius), best_,
                                         slack(), settled ? 0.0 : state_.lower_bound, state_.trail);
  if (settled) return;
  raise(bound);
  settle(Proof::certificate);
}

/// Looks at every piece when no start led anywhere.
void PointSolver::enumerate() {
  const auto& opposing = problem_.side.opposing;
  if (opposing.size() > kMostEnumerated) return;
  bool all_empty = true;
  std::vector<Projection> projections;
  for (std::size_t code = 0; code < std::size_t{1} << opposing.size(); ++code) {
    Subset subset(static_cast<std::size_t>(problem_.neurons.size()), 0);
    for (std::size_t i = 0; i < opposing.size(); ++i) {
      subset[static_cast<std::size_t>(opposing[i])] = (code >> i) & 1;
    }
    Projection projection = project(searched_, piece_of(searched_, subset));
    all_empty &= projection.empty;
    if (std::isfinite(projection.distance)) search_.from_subset(subset);
    projections.push_back(std::move(projection));
  }
  if (!all_empty) return;
  note_subsets(projections);
  state_.radius = state_.lower_bound = kInfinity;
  state_.proof = Proof::never_flips;
}

/// The tree of all subsets of opposing neurons, each a leaf with the plane that shows it empty.
void PointSolver::note_subsets(const std::vector<Projection>& projections) {
  auto& trail = state_.trail;
  if (!trail.wanted()) return;
  std::vector<Index> nodes{0};  // of all subsets of the neurons so far, in the order of their codes
  for (const Index neuron : problem_.side.opposing) {
    std::vector<Index> inactive, active;
    for (const Index node : nodes) {
      trail.enter(node, kInfinity);
      inactive.push_back(trail.branch(neuron));
      active.push_back(inactive.back() + 1);
    }
    inactive.insert(inactive.end(), active.begin(), active.end());
    nodes = std::move(inactive);
  }
  for (std::size_t code = 0; code < nodes.size(); ++code) {
    trail.enter(nodes[code], kInfinity);
    trail.plane(projections[code].multipliers);
  }
}

}  // namespace reluflow
