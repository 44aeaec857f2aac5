#include "reluflow/local_search.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "reluflow/ray_crossing.hpp"

namespace reluflow {
namespace {

constexpr int kLongestDescent = 60;
// A piece that lies so much further away than the best is left before its projection is exact.
constexpr double kHopeless = 1.5;
constexpr std::size_t kNeighbours = 6;
constexpr Index kPairedTargets = 4;
// Square roots of primes: directions that fill the space evenly (Kronecker sequences).
constexpr std::array<double, 4> kIrrationals = {1.4142135623730951, 1.7320508075688772,
                                                2.2360679774997898, 2.6457513110645907};

double fraction(double x) { return x - std::floor(x); }

Subset united(const Subset& left, const Subset& right) {
  Subset result = left;
  for (std::size_t j = 0; j < right.size(); ++j) result[j] = left[j] || right[j];
  return result;
}

void search_mixtures(const PointProblem& problem, LocalSearch& search) {
  for (const double irrational : kIrrationals) {
    Vector mixed = problem.side.output;
    for (Index j = 0; j < mixed.size(); ++j) {
      mixed[j] *= fraction(static_cast<double>(j + 1) * irrational);
    }
    search.from_multipliers(mixed);
  }
}

/// Single targets, the means of the first two, three, ..., and the pieces that are active at them,
/// at pairs, and at the first two, three, ... together.
void search_targets(const PointProblem& problem, const Matrix& targets, LocalSearch& search) {
  const Index count = targets.rows();
  std::vector<Subset> active;
  for (Index t = 0; t < count; ++t) {
    const Vector z = targets.row(t);
    search.from_ray(z - problem.preactivations);
    active.push_back(active_subset(problem, z));
  }
  Vector sum = Vector::Zero(problem.neurons.size());
  Subset together(static_cast<std::size_t>(problem.neurons.size()), 0);
  for (Index t = 0; t < count; ++t) {
    sum += targets.row(t);
    together = united(together, active[static_cast<std::size_t>(t)]);
    if (t > 0) search.from_ray(sum / static_cast<double>(t + 1) - problem.preactivations);
    search.from_subset(together);
  }
  for (Index s = 0; s < std::min(count, kPairedTargets); ++s) {
    for (Index t = 0; t < s; ++t) {
      search.from_ray((targets.row(s) + targets.row(t)).transpose() / 2 - problem.preactivations);
      search.from_subset(
          united(active[static_cast<std::size_t>(s)], active[static_cast<std::size_t>(t)]));
    }
  }
}

}  // namespace

LocalSearch::LocalSearch(const PointProblem& problem) : problem_(problem) {}

void LocalSearch::from_multipliers(const Vector& multipliers) {
  const Vector normal = problem_.neurons.rows.transpose() * multipliers;
  from_ray(-(problem_.neurons.rows * normal));
}

void LocalSearch::from_ray(const Vector& slopes) {
  const Ray ray{problem_.preactivations, slopes, problem_.side.output, problem_.constant};
  const double t = first_crossing(ray, Flip::nonstrict);
  if (!std::isfinite(t)) return;
  descend(active_subset(problem_, problem_.preactivations + t * slopes), kNever);
}

void LocalSearch::from_subset(const Subset& subset) { descend(subset, kHopeless * best_.distance); }

void LocalSearch::descend(Subset subset, double stop_above) {
  Vector warm;
  for (int step = 0; step < kLongestDescent; ++step) {
    if (!visited_.insert(subset).second) return;
    ProjectionOptions options;
    options.stop_above = stop_above;
    if (warm.size() > 0) options.multipliers = &warm;
    Projection projection = project(problem_, piece_of(problem_, subset), options);
    if (!std::isfinite(projection.distance)) return;
    const Subset next = active_subset(problem_, projection.preactivations);
    warm = projection.multipliers;
    if (projection.distance < best_.distance) {
      best_ = std::move(projection);
      best_subset_ = subset;
    }
    subset = next;
  }
}

std::vector<Index> LocalSearch::nearest_to_kink() const {
  std::vector<std::pair<double, Index>> order;
  for (const Index j : problem_.side.opposing) {
    order.emplace_back(std::abs(best_.preactivations[j]) / problem_.neurons.norms[j], j);
  }
  const std::size_t count = std::min(order.size(), kNeighbours);
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end());
  std::vector<Index> nearest;
  for (std::size_t i = 0; i < count; ++i) nearest.push_back(order[i].second);
  return nearest;
}

void LocalSearch::improve() {
  double previous = kNever;
  while (best_.distance < previous) {
    previous = best_.distance;
    const Subset centre = best_subset_;
    for (const Index j : nearest_to_kink()) {
      Subset neighbour = centre;
      neighbour[static_cast<std::size_t>(j)] ^= 1;
      from_subset(neighbour);
    }
  }
}

void search_along_gradients(const PointProblem& problem, LocalSearch& search) {
  const Vector& output = problem.side.output;
  const Vector active =
      (problem.preactivations.array() > 0.0).select(output, Vector::Zero(output.size()));
  const Vector support = output.cwiseMax(0.0), opposition = output.cwiseMin(0.0);
  search.from_multipliers(active);
  search.from_multipliers(active.cwiseMax(0.0) + opposition);
  search.from_multipliers(support);
  search.from_multipliers(output);
  search.from_multipliers(opposition);
}

void search_widely(const PointProblem& problem, const Matrix& targets, LocalSearch& search) {
  search_mixtures(problem, search);
  search_targets(problem, targets, search);
  const auto size = static_cast<std::size_t>(problem.neurons.size());
  search.from_subset(Subset(size, 0));
  Subset all(size, 0);
  for (const Index j : problem.side.opposing) all[static_cast<std::size_t>(j)] = 1;
  search.from_subset(all);
  if (search.found()) search.improve();
}

}  // namespace reluflow
