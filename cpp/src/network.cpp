#include "reluflow/network.hpp"

#include "reluflow/parallel.hpp"

namespace reluflow {
namespace {

constexpr Index kExamplesPerBlock = 256;

}  // namespace

Vector forward(const MatrixView& weights, const VectorView& bias, const VectorView& output,
               const MatrixView& inputs, int num_threads, Control* control) {
  const Index n = inputs.rows();
  Vector values(n);
  const double work = 2.0 * static_cast<double>(n) * static_cast<double>(weights.size());
  parallel_for(
      block_count(n, kExamplesPerBlock), threads_for(work, num_threads), control, [&](Index index) {
        const Block rows = block_at(index, n, kExamplesPerBlock);
        Matrix activations(rows.size, weights.rows());
        activations.noalias() = inputs.middleRows(rows.begin, rows.size) * weights.transpose();
        activations.rowwise() += bias.transpose();
        values.segment(rows.begin, rows.size).noalias() = activations.cwiseMax(0.0) * output;
      });
  return values;
}

}  // namespace reluflow
