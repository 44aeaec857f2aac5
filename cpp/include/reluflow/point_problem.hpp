#pragma once

#include <vector>

#include "reluflow/types.hpp"

namespace reluflow {

/// The neurons of a network as perturbations of its input see them. A perturbation acts through
/// its part u in the row space of the weights: pre-activations are a + rows u, where rows
/// rows^T = W W^T. docs/theory.md, section 7.
struct Neurons {
  Neurons(Matrix neuron_rows, int num_threads);

  Index size() const { return rows.rows(); }

  Matrix rows;   ///< (R, r), in coordinates of the row space
  Matrix gram;   ///< rows rows^T, (R, R)
  Vector norms;  ///< of the rows
};

/// The network times the label of a point, so that the point has output > 0 until it flips.
struct SignedOutput {
  SignedOutput(const VectorView& output, double network_constant, double label);

  Vector output;
  double constant;                ///< what neurons without weights add
  std::vector<Index> supporting;  ///< neurons with output > 0
  std::vector<Index> opposing;    ///< neurons with output < 0
};

/// The smallest u with N(u) = constant + sum_j output_j relu(preactivations_j + rows_j . u) <= 0.
struct PointProblem {
  const Neurons& neurons;
  const SignedOutput& side;
  Vector preactivations;
  double constant;

  double value() const;  ///< N(0)
};

/// The convex function constant + sum_supporting output_j relu(z_j) + sum_j slopes_j z_j of u,
/// slopes 0 at supporting neurons. With slopes equal to the output on a subset of the opposing
/// neurons it lies above N, and N is the smallest of these functions.
struct ConvexPiece {
  Vector slopes;
  double constant;
};

/// Marks of opposing neurons, one a neuron.
using Subset = std::vector<char>;

/// The piece on which the opposing neurons of `subset` count as active, the others as inactive.
ConvexPiece piece_of(const PointProblem& problem, const Subset& subset);

/// The opposing neurons that are active at pre-activations z.
Subset active_subset(const PointProblem& problem, const Vector& z);

}  // namespace reluflow
