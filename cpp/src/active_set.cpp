#include "active_set.hpp"

#include <Eigen/QR>
#include <algorithm>
#include <cmath>
#include <limits>

namespace reluflow {
namespace {

constexpr double kRankTolerance = 1e-11;
constexpr double kConsistencyTolerance = 1e-9;
constexpr double kSignTolerance = 1e-13;

/// The least-norm u with columns^T u = -offsets, and multipliers y with u = -columns y. Columns
/// that depend on others get multiplier 0; where their equations contradict the others,
/// `multipliers` is a direction y with columns y = 0 and offsets . y > 0 instead.
struct LeastNorm {
  Vector point;
  Vector multipliers;
  bool consistent = true;
};

class LeastNormSolver {
 public:
  LeastNormSolver(Eigen::MatrixXd columns, const Vector& offsets)
      : lengths_(columns.colwise().norm()), size_(columns.rows()) {
    columns.array().rowwise() /= lengths_.transpose().array();
    qr_.setThreshold(kRankTolerance);
    qr_.compute(columns);
    offsets_ = qr_.colsPermutation().transpose() * Vector(offsets.cwiseQuotient(lengths_));
  }

  LeastNorm solve() const {
    const Index rank = qr_.rank(), dependent = offsets_.size() - rank;
    const auto triangle = qr_.matrixQR().topLeftCorner(rank, rank).triangularView<Eigen::Upper>();
    const Vector coordinates = triangle.transpose().solve(offsets_.head(rank));
    if (dependent > 0) {
      const auto rest = qr_.matrixQR().topRightCorner(rank, dependent);
      const Vector gains = offsets_.tail(dependent) - rest.transpose() * coordinates;
      Index most;
      const double gain = gains.cwiseAbs().maxCoeff(&most);
      if (gain > kConsistencyTolerance * offsets_.cwiseAbs().maxCoeff()) {
        return direction(triangle.solve(rest.col(most)), most, gains[most] > 0.0 ? 1.0 : -1.0);
      }
    }
    Vector in_frame = Vector::Zero(size_), solution = Vector::Zero(offsets_.size());
    in_frame.head(rank) = -coordinates;
    solution.head(rank) = triangle.solve(coordinates);
    return {qr_.householderQ() * in_frame, unscaled(solution), true};
  }

 private:
  LeastNorm direction(const Vector& combination, Index dependent, double sign) const {
    Vector solution = Vector::Zero(offsets_.size());
    solution.head(combination.size()) = -sign * combination;
    solution[combination.size() + dependent] = sign;
    return {{}, unscaled(solution), false};
  }

  Vector unscaled(const Vector& permuted) const {
    return (qr_.colsPermutation() * permuted).cwiseQuotient(lengths_);
  }

  Vector lengths_;
  Index size_;
  Eigen::ColPivHouseholderQR<Eigen::MatrixXd> qr_;
  Vector offsets_;  // per unit of length, in the order of the pivots
};

}  // namespace

/// To the maximum with the states held, or without end where there is none.
struct ActiveSet::Move {
  double eta;
  Vector s;
  double length;
  Vector preactivations;  // at the maximum
  double norm;            // of the point there
};

ActiveSet::ActiveSet(const PointProblem& problem, const ConvexPiece& piece)
    : problem_(problem),
      piece_(piece),
      bounded_(piece.constant != 0.0 || (piece.slopes.array() != 0.0).any()),
      states_(static_cast<std::size_t>(problem.neurons.size()), State::inactive) {}

Vector ActiveSet::finish(const Vector& multipliers, int max_iterations) {
  start(multipliers);
  for (int iteration = 0; iteration < max_iterations; ++iteration) {
    Move move;
    if (!solve(move)) break;
    const Stepped stepped = step(move);
    if (stepped == Stepped::forever) break;
    const bool one_only = iteration > max_iterations / 2;
    if (stepped == Stepped::reached && !release(move.preactivations, move.norm, one_only)) break;
  }
  return this->multipliers();
}

void ActiveSet::start(const Vector& multipliers) {
  const Vector normal = problem_.neurons.rows.transpose() * multipliers;
  eta_ = (piece_.constant + multipliers.dot(problem_.preactivations)) / normal.squaredNorm();
  s_ = eta_ * multipliers;
  for (const Index j : problem_.side.supporting) {
    state(j) = State::kink;
    if (multipliers[j] <= 0.0) state(j) = State::inactive;
    if (bounded_ && multipliers[j] >= problem_.side.output[j]) state(j) = State::active;
  }
}

double ActiveSet::upper(Index neuron) const {
  return bounded_ ? eta_ * problem_.side.output[neuron] : std::numeric_limits<double>::infinity();
}

/// False when the states leave nothing to solve for.
bool ActiveSet::solve(Move& move) {
  const auto& rows = problem_.neurons.rows;
  Vector weights = piece_.slopes;
  std::vector<Index> kinks;
  for (const Index j : problem_.side.supporting) {
    if (state(j) == State::kink) kinks.push_back(j);
    if (state(j) == State::active) weights[j] = problem_.side.output[j];
  }
  const Index first = bounded_ ? 1 : 0, count = static_cast<Index>(kinks.size()) + first;
  if (count == 0) return false;
  Eigen::MatrixXd columns(rows.cols(), count);
  Vector offsets(count);
  if (bounded_) {
    columns.col(0).noalias() = rows.transpose() * weights;
    offsets[0] = piece_.constant + weights.dot(problem_.preactivations);
    if (columns.col(0).squaredNorm() == 0.0) return false;
  }
  for (Index i = first; i < count; ++i) {
    const Index j = kinks[static_cast<std::size_t>(i - first)];
    columns.col(i) = rows.row(j).transpose();
    offsets[i] = problem_.preactivations[j];
  }
  const LeastNorm solution = LeastNormSolver(std::move(columns), offsets).solve();
  const double eta_change = bounded_ ? solution.multipliers[0] : 0.0;
  move.s = eta_change * weights;
  for (Index i = first; i < count; ++i) {
    move.s[kinks[static_cast<std::size_t>(i - first)]] = solution.multipliers[i];
  }
  move.eta = eta_change;
  move.length = std::numeric_limits<double>::infinity();
  if (!solution.consistent) return true;
  if (bounded_) move.eta -= eta_;
  move.s -= s_;
  move.length = 1.0;
  move.preactivations = problem_.preactivations;
  move.preactivations.noalias() += rows * solution.point;
  move.norm = solution.point.norm();
  return true;
}

/// Moves as far as the bounds of the kinks' multipliers allow; a neuron that blocks leaves its
/// kink. Where nothing ever blocks, the piece is positive everywhere, and s becomes the proof.
ActiveSet::Stepped ActiveSet::step(const Move& move) {
  double length = move.length;
  Index blocking = -1;
  State blocked = State::inactive;
  const auto limit = [&](double room, double approach, Index neuron, State state) {
    if (approach <= 0.0 || room >= length * approach) return;
    length = std::max(0.0, room / approach);
    blocking = neuron;
    blocked = state;
  };
  for (const Index j : problem_.side.supporting) {
    if (state(j) != State::kink) continue;
    limit(s_[j], -move.s[j], j, State::inactive);
    if (bounded_) {
      limit(upper(j) - s_[j], move.s[j] - move.eta * problem_.side.output[j], j, State::active);
    }
  }
  if (std::isinf(length)) {
    eta_ = move.eta;
    s_ = move.s;
    return Stepped::forever;
  }
  eta_ += length * move.eta;
  s_ += length * move.s;
  if (blocking < 0) return Stepped::reached;
  state(blocking) = blocked;
  s_[blocking] = blocked == State::active ? upper(blocking) : 0.0;
  return Stepped::blocked;
}

/// Lets neurons go whose pre-activation contradicts their state, all of them or the worst one;
/// false when there is none.
bool ActiveSet::release(const Vector& preactivations, double norm, bool one_only) {
  Index worst = -1;
  double largest = kSignTolerance;
  for (const Index j : problem_.side.supporting) {
    if (state(j) == State::kink) continue;
    const double wrong = state(j) == State::active ? -preactivations[j] : preactivations[j];
    const double violation =
        wrong / (std::abs(problem_.preactivations[j]) + problem_.neurons.norms[j] * norm);
    if (violation <= kSignTolerance) continue;
    if (!one_only) state(j) = State::kink;
    if (violation > largest) {
      largest = violation;
      worst = j;
    }
  }
  if (worst >= 0) state(worst) = State::kink;
  return worst >= 0;
}

Vector ActiveSet::multipliers() const {
  double eta = eta_;
  if (!bounded_) {
    eta = 0.0;
    for (const Index j : problem_.side.supporting) {
      eta = std::max(eta, s_[j] / problem_.side.output[j]);
    }
  }
  Vector sigma = piece_.slopes;
  for (const Index j : problem_.side.supporting) {
    sigma[j] = std::clamp(s_[j] / eta, 0.0, problem_.side.output[j]);
  }
  return sigma;
}

}  // namespace reluflow
