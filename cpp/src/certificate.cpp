#include "reluflow/certificate.hpp"

#include <Eigen/Cholesky>
#include <algorithm>
#include <array>
#include <cmath>

namespace reluflow {
namespace {

constexpr int kMostRounds = 25;
constexpr int kPowerIterations = 30;
constexpr int kDampings = 12;
// Largest eigenvalues of sum k_j row_j row_j^T that are tried: nearer to 1 the minorant is tighter
// at its centre, further away it is wider.
constexpr std::array<double, 3> kEigenvalues = {0.98, 0.95, 0.88};

Vector centre_of(const PointProblem& problem, const Projection& projection) {
  return -projection.scale * (problem.neurons.rows.transpose() * projection.multipliers);
}

/// The undecided opposing neurons with their curvatures k, and S with S_ij = sqrt(k_i k_j) row_i .
/// row_j, which has the eigenvalues of sum k_j row_j row_j^T.
class CurvedNeurons {
 public:
  CurvedNeurons(const PointProblem& problem, const ShorMultipliers& multipliers)
      : curvature_(multipliers.curvature) {
    for (const Index j : problem.side.opposing) {
      if (curvature_[j] > 0.0) neurons_.push_back(j);
    }
    const auto p = static_cast<Index>(neurons_.size());
    rows_.resize(p, problem.neurons.rows.cols());
    gram_.resize(p, p);
    price_.resize(p);
    for (Index i = 0; i < p; ++i) {
      const Index j = neurons_[static_cast<std::size_t>(i)];
      rows_.row(i) = std::sqrt(curvature_[j]) * problem.neurons.rows.row(j);
      for (Index l = 0; l <= i; ++l) {
        const Index other = neurons_[static_cast<std::size_t>(l)];
        gram_(i, l) = gram_(l, i) =
            std::sqrt(curvature_[j] * curvature_[other]) * problem.neurons.gram(j, other);
      }
      // w |z| = w^2 / (4 k) at the closed form.
      const double w = multipliers.eta * problem.side.output[j];
      price_[i] = w * w / (4.0 * curvature_[j]);
    }
    eigenvector_ = Vector::Ones(p).normalized();
  }

  const Vector& curvature() const { return curvature_; }
  const Eigen::MatrixXd& gram() const { return gram_; }
  const Matrix& rows() const { return rows_; }

  /// Lowers curvatures until the largest eigenvalue is at most `target`. Lowering k_j by the factor
  /// exp(-e_j) costs the bound about price_j e_j^2 / 4 and lowers the eigenvalue by the share sum_j
  /// x_j^2 e_j, x the eigenvector, so that e_j in proportion to x_j^2 / price_j is the cheapest
  /// way.
  void damp(double target) {
    for (int damping = 0; damping < kDampings; ++damping) {
      const double largest = largest_eigenvalue();
      if (largest <= target) return;
      const Vector weight = eigenvector_.cwiseAbs2();
      const Vector direction = weight.cwiseQuotient(price_);
      const double excess = 1.0 - target / largest;
      scale(Vector((-excess / weight.dot(direction) * direction).array().exp()));
    }
    const double largest = largest_eigenvalue();
    if (largest > target) scale(Vector::Constant(price_.size(), target / largest));
  }

 private:
  void scale(const Vector& shares) {
    const Vector roots = shares.cwiseSqrt();
    gram_ = roots.asDiagonal() * gram_ * roots.asDiagonal();
    rows_ = roots.asDiagonal() * rows_;
    for (std::size_t i = 0; i < neurons_.size(); ++i) {
      curvature_[neurons_[i]] *= shares[static_cast<Index>(i)];
    }
  }

  double largest_eigenvalue() {
    double value = 0.0;
    for (int i = 0; i < kPowerIterations; ++i) {
      const Vector image = gram_ * eigenvector_;
      value = image.norm();
      if (value == 0.0) return 0.0;
      eigenvector_ = image / value;
    }
    return value;
  }

  std::vector<Index> neurons_;
  Vector curvature_;  // of all neurons
  Matrix rows_;       // times sqrt(k)
  Eigen::MatrixXd gram_;
  Vector price_;
  Vector eigenvector_;
};

/// The bound as a function of the share t of eta and s that is used, for fixed curvatures k:
/// constant + linear t + quadratic t^2 - ||fixed + t moving||^2 / 4 in the norm of H^-1.
struct Scaling {
  double constant = 0.0, linear = 0.0, quadratic = 0.0;
  Vector fixed, moving;
};

Scaling scaling_of(const PointProblem& problem, const Intervals& intervals,
                   const ShorMultipliers& multipliers) {
  const auto& a = problem.preactivations;
  Scaling result;
  Vector weights = multipliers.supporting, curved = Vector::Zero(a.size());
  for (const Index j : problem.side.opposing) {
    const double w = -multipliers.eta * problem.side.output[j], k = multipliers.curvature[j];
    if (k > 0.0) {
      weights[j] = -w / 2;
      curved[j] = -2 * k * a[j];
      result.constant -= k * a[j] * a[j];
      result.quadratic -= w * w / (16 * k);
    } else if (intervals.high[j] > 0.0) {
      weights[j] = -w;
    }
  }
  result.linear = multipliers.eta * problem.constant + weights.dot(a);
  result.fixed.noalias() = problem.neurons.rows.transpose() * curved;
  result.moving.noalias() = problem.neurons.rows.transpose() * weights;
  return result;
}

/// Multipliers with a convex minorant, and its minimum.
struct Damped {
  double value = 0.0;
  ShorMultipliers multipliers;
  Vector centre;
};

/// The best of a few dampings of the closed form's curvatures, each with the best t.
Damped damp(const PointProblem& problem, const Intervals& intervals,
            const ShorMultipliers& closed_form) {
  CurvedNeurons curved(problem, closed_form);
  Damped best;
  for (const double eigenvalue : kEigenvalues) {
    curved.damp(eigenvalue);
    const Index p = curved.gram().rows();
    const Eigen::LLT<Eigen::MatrixXd> cholesky(Eigen::MatrixXd::Identity(p, p) - curved.gram());
    if (cholesky.info() != Eigen::Success) continue;
    ShorMultipliers damped{closed_form.eta, closed_form.supporting, curved.curvature()};
    const Scaling scaling = scaling_of(problem, intervals, damped);
    const auto solve = [&](const Vector& g) -> Vector {
      return g + curved.rows().transpose() * cholesky.solve(curved.rows() * g);
    };
    const Vector fixed = solve(scaling.fixed), moving = solve(scaling.moving);
    const double slope = scaling.linear - scaling.fixed.dot(moving) / 2;
    const double bend = scaling.moving.dot(moving) / 4 - scaling.quadratic;
    const double t = bend > 0.0 ? std::max(0.0, slope / (2 * bend)) : 0.0;
    const double value = scaling.constant - scaling.fixed.dot(fixed) / 4 + t * (slope - t * bend);
    if (value > best.value) {
      damped.eta *= t;
      damped.supporting *= t;
      best = {value, std::move(damped), -(fixed + t * moving) / 2};
    }
  }
  return best;
}

void note(ProofStep::Kind kind, const ShorMultipliers& multipliers, ProofTrail& trail) {
  trail.quadratic(kind, multipliers.eta, multipliers.supporting, multipliers.curvature);
}

Index undecided_count(const PointProblem& problem, const Intervals& intervals) {
  return std::count_if(problem.side.opposing.begin(), problem.side.opposing.end(),
                       [&](Index j) { return intervals.undecided(j); });
}

}  // namespace

double closed_form_bound(const PointProblem& problem, const Intervals& intervals,
                         const Projection& projection, double slack, double known,
                         ProofTrail& trail) {
  const ShorMultipliers multipliers = closed_form_multipliers(problem, intervals, projection);
  const double bound =
      Minorant(problem, intervals, multipliers, centre_of(problem, projection), slack)
          .lower_bound();
  if (bound > known) note(ProofStep::Kind::bound, multipliers, trail);
  return bound;
}

DualBound dual_bound(const PointProblem& problem, const Projection& projection, double radius,
                     double enough, double slack, Intervals& intervals, ProofTrail& trail) {
  const Vector centre = centre_of(problem, projection);
  DualBound result;
  for (int round = 0; round < kMostRounds; ++round) {
    if (intervals.contradictory()) return {radius, -1};
    const ShorMultipliers closed_form = closed_form_multipliers(problem, intervals, projection);
    const Minorant exact(problem, intervals, closed_form, centre, slack);
    if (exact.lower_bound() > result.lower_bound) {
      result.lower_bound = exact.lower_bound();
      note(ProofStep::Kind::bound, closed_form, trail);
    }
    result.widest_gap = exact.widest_gap();
    if (result.lower_bound >= enough || result.widest_gap < 0) return result;
    const Damped damped = damp(problem, intervals, closed_form);
    if (damped.value <= 0.0) return result;
    const Minorant minorant(problem, intervals, damped.multipliers, damped.centre, slack);
    result.lower_bound = std::max(result.lower_bound, minorant.lower_bound());
    result.widest_gap = minorant.widest_gap();
    if (minorant.convex()) note(ProofStep::Kind::ellipsoid, damped.multipliers, trail);
    if (result.lower_bound >= enough) return result;
    const Index before = undecided_count(problem, intervals);
    minorant.cut(radius, intervals);
    if (undecided_count(problem, intervals) == before) return result;
  }
  return result;
}

}  // namespace reluflow
