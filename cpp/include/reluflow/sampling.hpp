#pragma once

#include <cstdint>
#include <vector>

#include "reluflow/control.hpp"
#include "reluflow/types.hpp"

namespace reluflow {

/// Fresh examples that are drawn, and counted, together.
inline constexpr Index kSampleBlock = 2048;

/// Gaussian clusters as a network's hidden layer sees them: an example of cluster q has the
/// pre-activations offsets.row(q) + scales[q] factor(q) g with standard normal g.
struct ClusterActivations {
  MatrixView offsets;  // (k, m)
  MatrixView factors;  // (m, r), shared by all clusters, or (k m, r), one below the other
  VectorView scales;   // (k)
  VectorView output;   // (m), the network's output weights
  VectorView labels;   // (k)
};

struct ErrorCounts {
  std::vector<Index> draws;   // per cluster
  std::vector<Index> errors;  // per cluster
  Index blocks = 0;           // completed: fewer than asked for only when `control` stopped it
};

/// Draws the blocks first_block .. first_block + blocks - 1 of fresh examples, the cluster of each
/// uniform, and counts those with label N <= 0, or < 0 when `strict`. The examples of a block
/// depend on its number and on `key` alone. docs/theory.md, section 8.1.
ErrorCounts count_errors(const ClusterActivations& clusters, std::uint64_t key,
                         std::uint64_t first_block, Index blocks, bool strict, int num_threads,
                         Control* control = nullptr);

}  // namespace reluflow
