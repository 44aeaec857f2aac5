#include "reluflow/sampling.hpp"

#include <atomic>

#include "reluflow/parallel.hpp"
#include "reluflow/random.hpp"

namespace reluflow {
namespace {

/// Examples whose outputs are computed side by side, and neurons that share one pass over g.
constexpr Index kTile = 8;
constexpr Index kNeurons = 4;
static_assert(kSampleBlock % kTile == 0);

using Tile = Eigen::Array<double, kTile, 1>;
using TileView = Eigen::Map<const Tile>;

/// One cluster's part of ClusterActivations.
struct Cluster {
  const double* offset;
  const double* factor;
  double scale;
  double label;
};

Cluster cluster_at(const ClusterActivations& clusters, Index q) {
  const Index width = clusters.output.size();
  const Index factor_row = clusters.factors.rows() == width ? 0 : q * width;
  return {clusters.offsets.data() + q * width,
          clusters.factors.data() + factor_row * clusters.factors.cols(), clusters.scales[q],
          clusters.labels[q]};
}

/// Adds the terms of `count` neurons, starting at `neuron`, to the outputs of one tile. `normals`
/// holds g of the tile, one coordinate a row. Products and sums are separate operations in a fixed
/// order, so that every instruction set rounds alike.
template <Index count>
void add_neurons(const Cluster& cluster, const ClusterActivations& clusters, Index neuron,
                 const double* normals, Tile& outputs) {
  const Index rank = clusters.factors.cols();
  const double* rows = cluster.factor + neuron * rank;
  Tile noise[count];
  for (Index j = 0; j < count; ++j) noise[j].setZero();
  for (Index i = 0; i < rank; ++i) {
    const TileView g(normals + i * kTile);
    for (Index j = 0; j < count; ++j) noise[j] += rows[j * rank + i] * g;
  }
  for (Index j = 0; j < count; ++j) {
    const double offset = cluster.offset[neuron + j];
    outputs += clusters.output[neuron + j] * (offset + cluster.scale * noise[j]).max(0.0);
  }
}

/// label N of the tile's examples.
Tile tile_margins(const Cluster& cluster, const ClusterActivations& clusters,
                  const double* normals) {
  const Index width = clusters.output.size();
  const Index whole = width - width % kNeurons;
  Tile outputs = Tile::Zero();
  for (Index j = 0; j < whole; j += kNeurons) {
    add_neurons<kNeurons>(cluster, clusters, j, normals, outputs);
  }
  for (Index j = whole; j < width; ++j) add_neurons<1>(cluster, clusters, j, normals, outputs);
  return cluster.label * outputs;
}

/// Errors among the block's examples begin .. end - 1, all of one cluster. A tile that reaches
/// beyond them is computed whole and counted in part.
Index count_segment(const ClusterActivations& clusters, Index q, const Vector& normals, Index begin,
                    Index end, bool strict) {
  const Cluster cluster = cluster_at(clusters, q);
  const Index tile_size = kTile * clusters.factors.cols();
  Index errors = 0;
  for (Index tile = begin / kTile; tile * kTile < end; ++tile) {
    const Tile margins = tile_margins(cluster, clusters, normals.data() + tile * tile_size);
    const Index first = std::max(begin - tile * kTile, Index{0});
    const Index last = std::min(end - tile * kTile, kTile);
    for (Index i = first; i < last; ++i) {
      errors += strict ? margins[i] < 0.0 : margins[i] <= 0.0;
    }
  }
  return errors;
}

/// How many of a block's examples fall on each cluster. Examples of a block are exchangeable, so
/// they may be numbered by cluster.
std::vector<Index> draw_clusters(std::uint64_t key, std::uint64_t block, Index n_clusters) {
  Vector uniforms(kSampleBlock);
  fill_uniforms({key, block, DrawPurpose::clusters}, uniforms.data(), kSampleBlock);
  std::vector<Index> draws(static_cast<std::size_t>(n_clusters), 0);
  for (const double u : uniforms) {
    ++draws[static_cast<std::size_t>(u * static_cast<double>(n_clusters))];
  }
  return draws;
}

/// Integer sums that several threads add to: their order does not matter.
using Totals = std::vector<std::atomic<Index>>;

std::vector<Index> values(const Totals& totals) { return {totals.begin(), totals.end()}; }

}  // namespace

ErrorCounts count_errors(const ClusterActivations& clusters, std::uint64_t key,
                         std::uint64_t first_block, Index blocks, bool strict, int num_threads,
                         Control* control) {
  const Index n_clusters = clusters.labels.size();
  const Index rank = clusters.factors.cols();
  Totals draws(static_cast<std::size_t>(n_clusters)), errors(draws.size());
  std::atomic<Index> done{0};
  const auto sample_block = [&](Index index) {
    const std::uint64_t block = first_block + static_cast<std::uint64_t>(index);
    Vector normals(kSampleBlock * rank);
    fill_normals({key, block, DrawPurpose::normals}, normals.data(), normals.size());
    const std::vector<Index> block_draws = draw_clusters(key, block, n_clusters);
    Index begin = 0;
    for (Index q = 0; q < n_clusters; ++q) {
      const auto at = static_cast<std::size_t>(q);
      const Index end = begin + block_draws[at];
      errors[at] += count_segment(clusters, q, normals, begin, end, strict);
      draws[at] += block_draws[at];
      begin = end;
    }
    ++done;
  };
  const double work = 2.0 * static_cast<double>(blocks * kSampleBlock) *
                      static_cast<double>(clusters.factors.cols() + 2) *
                      static_cast<double>(clusters.output.size());
  parallel_for(blocks, threads_for(work, num_threads), control, sample_block);
  return {values(draws), values(errors), done};
}

}  // namespace reluflow
