#include "reluflow/ball_search.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace reluflow {
namespace {

constexpr int kLongestDescent = 60;
constexpr std::size_t kNeighbours = 6;
constexpr std::size_t kPairedTargets = 4;
// Cosine from which on neurons count as one.
constexpr double kParallel = 0.99;
// Length of all steps of projected gradient descent together, in radii.
constexpr double kTravel = 2.5;
// Of the descent that is one of the starts.
constexpr int kDescentSteps = 10;
// Up to so many opposing neurons all of their subsets are looked at.
constexpr std::size_t kEnumerated = 8;

Subset united(const Subset& left, const Subset& right) {
  Subset result = left;
  for (std::size_t j = 0; j < right.size(); ++j) result[j] = left[j] || right[j];
  return result;
}

/// All pieces, where there are few.
void search_all(const PointProblem& problem, BallSearch& search) {
  const auto& opposing = problem.side.opposing;
  if (opposing.size() > kEnumerated) return;
  for (std::size_t code = 0; code < std::size_t{1} << opposing.size(); ++code) {
    Subset subset(static_cast<std::size_t>(problem.neurons.size()), 0);
    for (std::size_t i = 0; i < opposing.size(); ++i) {
      subset[static_cast<std::size_t>(opposing[i])] = (code >> i) & 1;
    }
    search.from_subset(subset);
  }
}

/// Single targets, the first two, three, ... together, and pairs: the pieces at the end of the ball
/// in their direction, and those that are active at the targets themselves.
void search_targets(const PointProblem& problem, const AdversarialTargets& targets,
                    BallSearch& search) {
  const Vector& start = problem.preactivations;
  std::vector<Vector> slopes;
  std::vector<Subset> active;
  for (std::size_t t = 0; t < targets.order.size(); ++t) {
    const Vector z = targets.preactivations.row(targets.order[t]);
    slopes.push_back(z - start);
    active.push_back(active_subset(problem, z));
    search.from_slopes(slopes[t], targets.distance[t]);
    search.from_subset(active[t]);
  }
  Vector sum = Vector::Zero(start.size());
  Subset together(static_cast<std::size_t>(start.size()), 0);
  double summed = 0.0;
  for (std::size_t t = 0; t < targets.order.size(); ++t) {
    sum += slopes[t];
    together = united(together, active[t]);
    // As long as directions towards targets at right angles would be together.
    summed = std::hypot(summed, targets.distance[t]);
    search.from_slopes(sum, summed);
    search.from_subset(together);
  }
  for (std::size_t s = 0; s < std::min(targets.order.size(), kPairedTargets); ++s) {
    for (std::size_t t = 0; t < s; ++t) {
      search.from_slopes(slopes[s] + slopes[t],
                         std::hypot(targets.distance[s], targets.distance[t]));
      search.from_subset(united(active[s], active[t]));
    }
  }
}

}  // namespace

BallSearch::BallSearch(const PointProblem& problem, double radius, double spread)
    : problem_(problem), radius_(radius), spread_(spread) {}

void BallSearch::from_subset(const Subset& start, const Vector* multipliers) {
  Subset subset = start;
  Vector warm;
  if (multipliers) warm = *multipliers;
  for (int step = 0; step < kLongestDescent; ++step) {
    if (!visited_.insert(subset).second || cannot_improve(subset)) return;
    BallOptions options;
    options.stop_above = best_.value + spread_;
    if (warm.size() == 0 && best_.multipliers.size() > 0) warm = best_.multipliers;
    if (warm.size() > 0) options.multipliers = &warm;
    BallMinimum minimum = minimize_in_ball(problem_, piece_of(problem_, subset), radius_, options);
    if (minimum.lower_bound >= options.stop_above || !std::isfinite(minimum.value)) return;
    const Subset next = active_subset(problem_, minimum.preactivations);
    warm = minimum.multipliers;
    AdversarialPoint point{minimum.value, std::move(minimum.multipliers),
                           std::move(minimum.coefficients), std::move(minimum.preactivations)};
    if (next == subset && spread_ > 0.0) found_.push_back(point);
    if (point.value < best_.value) {
      best_ = std::move(point);
      gram_multipliers_.noalias() = problem_.neurons.gram * best_.multipliers;
    }
    if (next == subset) return;
    subset = next;
  }
}

/// The lower bound that the best point's multipliers give for the piece of a subset.
bool BallSearch::cannot_improve(const Subset& subset) {
  const Vector& sigma = best_.multipliers;
  if (sigma.size() == 0) return false;
  changed_.clear();
  double offset = problem_.constant + sigma.dot(problem_.preactivations);
  double squared_norm = sigma.dot(gram_multipliers_);
  for (const Index j : problem_.side.opposing) {
    const double slope = subset[static_cast<std::size_t>(j)] ? problem_.side.output[j] : 0.0;
    const double change = slope - sigma[j];
    if (change == 0.0) continue;
    offset += change * problem_.preactivations[j];
    squared_norm += change * (2 * gram_multipliers_[j] + change * problem_.neurons.gram(j, j));
    for (const auto& [other, by] : changed_) {
      squared_norm += 2 * change * by * problem_.neurons.gram(j, other);
    }
    changed_.emplace_back(j, change);
  }
  return offset - radius_ * std::sqrt(std::max(0.0, squared_norm)) >= best_.value + spread_;
}

void BallSearch::from_slopes(const Vector& slopes, double length) {
  const double scale = length > 0.0 ? radius_ / length : 0.0;
  from_subset(active_subset(problem_, problem_.preactivations + scale * slopes));
}

void BallSearch::from_multipliers(const Vector& multipliers) {
  const Vector slopes = -(problem_.neurons.gram * multipliers);
  from_slopes(slopes, std::sqrt(std::max(0.0, -multipliers.dot(slopes))));
}

void BallSearch::improve() {
  double previous = std::numeric_limits<double>::infinity();
  while (best_.value < previous) {
    previous = best_.value;
    const Subset centre = active_subset(problem_, best_.preactivations);
    for (const Subset& group : groups_nearest_to_kink()) {
      Subset neighbour = centre;
      for (std::size_t j = 0; j < group.size(); ++j) neighbour[j] ^= group[j];
      from_subset(neighbour);
    }
  }
}

std::vector<Subset> BallSearch::groups_nearest_to_kink() const {
  const Vector& z = best_.preactivations;
  const Vector& norms = problem_.neurons.norms;
  std::vector<std::pair<double, Index>> order;
  for (const Index j : problem_.side.opposing) order.emplace_back(std::abs(z[j]) / norms[j], j);
  std::sort(order.begin(), order.end());
  Subset grouped(static_cast<std::size_t>(z.size()), 0);
  std::vector<Subset> groups;
  for (const auto& [distance, j] : order) {
    if (groups.size() == kNeighbours) break;
    if (grouped[static_cast<std::size_t>(j)]) continue;
    groups.emplace_back(grouped.size(), 0);
    for (const Index other : problem_.side.opposing) {
      const auto at = static_cast<std::size_t>(other);
      const double inner = problem_.neurons.gram(j, other);
      if (grouped[at] || (z[j] > 0.0) != (z[other] > 0.0)) continue;
      if (other != j && inner < kParallel * norms[j] * norms[other]) continue;
      grouped[at] = groups.back()[at] = 1;
    }
  }
  return groups;
}

std::vector<AdversarialPoint> BallSearch::minima() const {
  if (spread_ == 0.0) return {best_};
  std::vector<AdversarialPoint> near;
  for (const AdversarialPoint& point : found_) {
    if (point.value <= best_.value + spread_) near.push_back(point);
  }
  std::stable_sort(near.begin(), near.end(),
                   [](const auto& left, const auto& right) { return left.value < right.value; });
  return near;
}

void search_in_ball(const PointProblem& problem, double radius, const AdversarialTargets& targets,
                    BallSearch& search) {
  const Vector& output = problem.side.output;
  const Vector& start = problem.preactivations;
  const Vector active = (start.array() > 0.0).select(output, Vector::Zero(output.size()));
  search.from_multipliers(active);
  search.from_slopes(Vector::Zero(output.size()), 0.0);
  search.from_multipliers(active.cwiseMax(0.0) + output.cwiseMin(0.0));
  search.from_multipliers(output.cwiseMax(0.0));
  search.from_multipliers(output);
  search.from_multipliers(output.cwiseMin(0.0));

  search_targets(problem, targets, search);
  const auto size = static_cast<std::size_t>(output.size());
  search.from_subset(Subset(size, 0));
  Subset all(size, 0);
  for (const Index j : problem.side.opposing) all[static_cast<std::size_t>(j)] = 1;
  search.from_subset(all);
  const AdversarialPoint descent = projected_gradient_descent(problem, radius, kDescentSteps);
  search.from_subset(active_subset(problem, descent.preactivations));
  search_all(problem, search);
  search.improve();
}

AdversarialPoint projected_gradient_descent(const PointProblem& problem, double radius, int steps) {
  const Matrix& gram = problem.neurons.gram;
  const Vector& output = problem.side.output;
  Vector coefficients = Vector::Zero(output.size());
  AdversarialPoint best;
  for (int step = 0;; ++step) {
    const Vector z = problem.preactivations + gram * coefficients;
    const Vector active = (z.array() > 0.0).select(output, Vector::Zero(output.size()));
    const double value = problem.constant + active.dot(z);
    if (value < best.value) best = {value, active, coefficients, z};
    const double length = std::sqrt(std::max(0.0, active.dot(gram * active)));
    if (step == steps || !(length > 0.0)) return best;
    coefficients -= kTravel * radius / (steps * length) * active;
    const double norm = std::sqrt(std::max(0.0, coefficients.dot(gram * coefficients)));
    if (norm > radius) coefficients *= radius / norm;
  }
}

}  // namespace reluflow
