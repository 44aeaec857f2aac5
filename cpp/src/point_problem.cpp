#include "reluflow/point_problem.hpp"

#include <utility>

#include "reluflow/products.hpp"

namespace reluflow {

Neurons::Neurons(Matrix neuron_rows, int num_threads)
    : rows(std::move(neuron_rows)), gram(rows.rows(), rows.rows()), norms(rows.rowwise().norm()) {
  multiply(rows, rows.transpose(), gram, num_threads);
}

SignedOutput::SignedOutput(const VectorView& network_output, double network_constant, double label)
    : output(label * network_output), constant(label * network_constant) {
  for (Index j = 0; j < output.size(); ++j) {
    if (output[j] > 0.0) supporting.push_back(j);
    if (output[j] < 0.0) opposing.push_back(j);
  }
}

double PointProblem::value() const {
  return constant + side.output.dot(preactivations.cwiseMax(0.0));
}

ConvexPiece piece_of(const PointProblem& problem, const Subset& subset) {
  ConvexPiece piece{Vector::Zero(problem.neurons.size()), problem.constant};
  for (const Index j : problem.side.opposing) {
    if (subset[static_cast<std::size_t>(j)]) piece.slopes[j] = problem.side.output[j];
  }
  return piece;
}

Subset active_subset(const PointProblem& problem, const Vector& z) {
  Subset subset(static_cast<std::size_t>(z.size()), 0);
  for (const Index j : problem.side.opposing) subset[static_cast<std::size_t>(j)] = z[j] > 0.0;
  return subset;
}

}  // namespace reluflow
