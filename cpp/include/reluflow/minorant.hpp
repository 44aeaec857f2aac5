#pragma once

#include <Eigen/Core>
#include <vector>

#include "reluflow/perturbation_bounds.hpp"

namespace reluflow {

/// A point of the dual of min ||u||^2 subject to N(u) <= 0. For eta >= 0, 0 <= s_j <= eta output_j
/// and k_j > 0, and z = a + rows u,
///
///   ||u||^2 + eta N(u) >= ||u||^2 + eta constant + sum_supporting s_j z_j
///                         - sum_opposing (k_j z_j^2 + w_j z_j / 2 + w_j^2 / (16 k_j)),
///
/// with w_j = eta |output_j|, since relu(z) <= (z + c)^2 / (4 c) for every c > 0; where z_j stays
/// within an interval, a lower parabola of the same curvature k_j does (see Parabola). Opposing
/// neurons whose sign is decided by the intervals enter exactly. Where the right side is convex,
/// its minimum bounds the squared radius from below. docs/theory.md, sections 7.5 and 7.6.
struct ShorMultipliers {
  double eta;
  Vector supporting;  ///< s, (R); 0 at opposing neurons
  Vector curvature;   ///< k, (R); 0 at neurons other than undecided opposing ones
};

/// Which parabolas lie above the relu's of undecided neurons.
enum class Majorants {
  everywhere,  ///< those that hold for all z
  intervals,   ///< those that hold on the intervals
};

/// The multipliers for which the right side is stationary at the projection onto its piece, where
/// its multipliers put it, and equals its squared distance there: the parabolas touch at z_j, those
/// that hold everywhere with k_j = w_j / (4 |z_j|).
ShorMultipliers closed_form_multipliers(const PointProblem& problem, const Intervals& intervals,
                                        Majorants majorants, const Projection& projection);

/// The right side as a quadratic in u, expanded around a point, which makes no difference but to
/// rounding; everything it says has all rounding errors counted against it.
class Minorant {
 public:
  Minorant(const PointProblem& problem, const Intervals& intervals, Majorants majorants,
           ShorMultipliers multipliers, const Vector& centre, double slack);

  /// Whether convexity was shown, by a Cholesky factorisation.
  bool convex() const { return convex_; }

  /// The lower bound on the radius; 0 without convexity.
  double lower_bound() const;

  /// Intersects the intervals with those of the ellipsoid in which the quadratic is at most
  /// radius^2: outside of it no u shorter than `radius` flips.
  void cut(double radius, Intervals& intervals) const;

  /// Of the parabolas at z = 0, (R); 0 at neurons without one.
  const Vector& slopes() const { return slopes_; }

  /// The undecided neuron whose parabola is furthest above it at the centre, -1 without any.
  Index widest_gap() const;

 private:
  void expand(const Intervals& intervals, Majorants majorants);
  void factorise();

  const PointProblem& problem_;
  ShorMultipliers multipliers_;
  Vector centre_;
  double slack_;
  Vector slopes_;
  Vector z_;  // at the centre
  Vector z_rounding_;
  double value_ = 0.0;  // at the centre
  double value_rounding_ = 0.0;
  Vector gradient_;  // at the centre
  double gradient_rounding_ = 0.0;
  std::vector<Index> curved_;  // neurons with k_j > 0
  std::vector<double> gaps_;   // of their parabolas at the centre
  Eigen::MatrixXd factor_;     // lower Cholesky factor, see factorise()
  bool convex_ = false;
  double drop_ = 0.0;  // from the centre to the minimum, bounded from above
};

}  // namespace reluflow
