#pragma once

#include <algorithm>
#include <vector>

#include "reluflow/team.hpp"
#include "reluflow/types.hpp"
#include "reluflow/vectors.hpp"

namespace reluflow {

/// What the integrator sees of a model: log L and its descent direction at theta, and a norm.
/// docs/theory.md, section 2.
class Objective {
 public:
  virtual ~Objective() = default;

  virtual Index size() const = 0;

  /// Returns log L at theta and writes velocity = -grad log L; refreshes margins() and weights().
  virtual double evaluate(const Vector& theta, Vector& velocity) = 0;

  /// The same at theta + h direction; `room`, as long as theta, is for that point, and stays as it
  /// is left until the next evaluation.
  virtual double evaluate_ahead(const Vector& theta, double h, const Vector& direction,
                                Vector& room, Vector& velocity, Team& team) {
    assign(team, room, 2, theta + h * direction);
    return evaluate(room, velocity);
  }

  /// Squared Euclidean norm of the network's parameters at theta.
  virtual double squared_norm(const Vector& theta) const = 0;

  /// In the network's parameters a difference d of two thetas has the squared Euclidean norm
  /// d[0, p) . d[p, 2p) + ||d[2p, ..)||^2, with this p: 0 where theta is the parameters themselves.
  virtual Index paired() const { return 0; }

  /// A margin over the power of the norm that makes it invariant under scaling of the parameters.
  virtual double normalized_margin(double margin, double norm) const {
    return margin / (norm * norm);
  }

  /// Examples, at the last evaluated theta, that no neuron of their own label is active on: their
  /// margin cannot rise.
  virtual std::vector<Index> unreachable() const = 0;

  /// Whether L has minimisers at finite margins, so that its gradient flow comes to rest.
  virtual bool comes_to_rest() const = 0;

  /// Labels of the examples, +1 and -1.
  virtual const Vector& labels() const = 0;

  const Vector& margins() const { return margins_; }
  const Vector& weights() const { return weights_; }

 protected:
  Vector margins_;
  Vector weights_;
};

/// Squared Euclidean norm, in the network's parameters, of an Eigen expression that is a difference
/// of two thetas.
template <class Difference>
double squared_difference_norm(const Objective& objective, Team& team,
                               const Difference& difference) {
  const Index p = objective.paired();
  const double rest = squared_norm(team, difference.tail(difference.size() - 2 * p));
  if (p == 0) return rest;
  return std::max(0.0, dot(team, difference.head(p), difference.segment(p, p))) + rest;
}

}  // namespace reluflow
