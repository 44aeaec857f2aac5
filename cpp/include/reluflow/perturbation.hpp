#pragma once

#include <vector>

#include "reluflow/branching.hpp"
#include "reluflow/control.hpp"
#include "reluflow/ray_crossing.hpp"

namespace reluflow {

/// What proved a radius.
enum class Proof {
  none,             ///< the radius is an upper bound; the lower bound is what could be shown
  already_flipped,  ///< radius 0
  neuronwise,       ///< no neuron by itself can move far enough
  certificate,      ///< the closed-form convex minorant
  relaxation,       ///< one convex relaxation with chords, on the cap that is left of the ball
  dual,             ///< convex minorants with the best multipliers, on what they leave of the ball
  branching,        ///< branch and bound
  never_flips,      ///< every convex piece is empty
};

struct PerturbationOptions {
  Flip flip = Flip::nonstrict;
  double rtol = 1e-6;
  Index max_nodes = 100;
  int num_threads = 1;
  bool keep_proofs = false;
};

/// The points: row i of `preactivations` (n, R) with its label; outputs computed from it may be off
/// by up to `slack_i`. `targets` (p, R) holds pre-activations at points that are likely to have the
/// other label, and row i of `target_order` (n, s) the rows of `targets` to try for point i, the
/// most useful first, filled up with -1.
struct PointSet {
  MatrixView preactivations;
  VectorView labels;
  VectorView slack;
  MatrixView targets;
  Eigen::Map<const Eigen::Matrix<std::int64_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>
      target_order;
};

/// The steps of the proofs of all points, one after the other; see ProofStep.
struct ProofSteps {
  std::vector<Index> point, kind, node, neuron, child;
  Vector radius, eta;
  std::vector<Index> first;  ///< of the step's multipliers, and one past the last
  std::vector<Index> multiplier_neuron;
  Vector multiplier;
  Vector slope;  ///< of the parabola that belongs to the multiplier, or 0
};

/// One entry a point.
struct PerturbationOutcome {
  Vector radius;
  Vector lower_bound;
  Matrix coefficients;  ///< (n, R): the perturbation is rows^T coefficients
  std::vector<Subset> subsets;
  std::vector<Proof> proofs;
  std::vector<Index> nodes;
  StopReason stopped = StopReason::none;
  ProofSteps steps{};  ///< none unless they are to be kept
};

/// The smallest perturbation that flips each point: upper bounds from local search, then proofs in
/// order of cost. `lipschitz` bounds |N(u) - N(0)| / ||u||. Cheap bounds come first for all points,
/// and where `control` stops it before a point was looked at, its bounds are 0 and infinity.
PerturbationOutcome min_perturbations(const MatrixView& rows, const VectorView& output,
                                      double constant, double lipschitz, const PointSet& points,
                                      const PerturbationOptions& options, Control& control);

struct SubsetProjections {
  Vector distance;
  Vector lower_bound;
  Matrix coefficients;
};

/// The nearest point of one convex piece for each point: row i of `subsets` (n, R) marks the
/// opposing neurons that count as active.
SubsetProjections subset_projections(const MatrixView& rows, const VectorView& output,
                                     double constant, const MatrixView& preactivations,
                                     const VectorView& labels, const MatrixView& subsets,
                                     int num_threads, Control* control = nullptr);

}  // namespace reluflow
