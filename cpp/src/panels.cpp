#include "reluflow/panels.hpp"

#include <algorithm>

#include "reluflow/memory.hpp"
#include "reluflow/parallel.hpp"

namespace reluflow {
namespace {

using Eigen::internal::ploadu;
using Eigen::internal::pmadd;
using Eigen::internal::pset1;
using Eigen::internal::pstoreu;

// Depth of a block: a panel of this depth stays in the first-level cache.
constexpr Index kDepthBlock = 320;
// Numbers of the strips that stay in the second-level cache over all panels.
constexpr Index kCachedNumbers = 32'000;

/// Where numbers begin that later tiles need: while one tile is computed they are brought into the
/// second-level cache, a line of each in kFetchPeriod rounds, because what waits behind the ends of
/// a strip and of a panel is out of sight of the processor's own prefetching.
struct Ahead {
  const double* strip;
  const double* panel;
};
constexpr Index kFetchPeriod = 16;

void fetch(const double* first, Index rounds) {
  constexpr Index kLine = 64 / sizeof(double);
#ifdef __GNUC__
  __builtin_prefetch(first + rounds / kFetchPeriod * kLine, 0, 2);
#endif
}

/// Adds to (or starts) one tile: out (kStripRows, V vectors) += strip * panel over `depth`. Row k
/// of the panel belongs to column k of the strip, or to its column columns[k] where Chosen.
template <int V, bool Chosen>
void tile(const double* strip, const Index* columns, const double* panel, Index depth, bool start,
          double* out, const Ahead& ahead) {
  constexpr Index kRow = V * kLanes;
  // Unrolled throughout: an array that is indexed at run time would not stay in registers.
  Packet sum[V][kStripRows];
#pragma GCC unroll 8
  for (int r = 0; r < kStripRows; ++r) {
#pragma GCC unroll 8
    for (int u = 0; u < V; ++u) {
      sum[u][r] = start ? pset1<Packet>(0.0) : ploadu<Packet>(out + r * kRow + u * kLanes);
    }
  }
  for (Index k = 0; k < depth;) {
    fetch(ahead.strip, k);
    fetch(ahead.panel, k);
    for (const Index stop = std::min(depth, k + kFetchPeriod); k < stop; ++k) {
      const double* factors = strip + (Chosen ? columns[k] : k) * kStripRows;
      Packet column[V];
#pragma GCC unroll 8
      for (int u = 0; u < V; ++u) column[u] = ploadu<Packet>(panel + u * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kStripRows; ++r) {
        const Packet factor = pset1<Packet>(factors[r]);
#pragma GCC unroll 8
        for (int u = 0; u < V; ++u) sum[u][r] = pmadd(column[u], factor, sum[u][r]);
      }
      panel += kRow;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kStripRows; ++r) {
#pragma GCC unroll 8
    for (int u = 0; u < V; ++u) pstoreu(out + r * kRow + u * kLanes, sum[u][r]);
  }
}

/// Equal parts of at most `largest`.
Index even_part(Index total, Index largest) {
  const Index parts = std::max<Index>(1, block_count(total, largest));
  return block_count(total, parts);
}

}  // namespace

Panels::Panels(Index width)
    : width_(width),
      vectors_(block_count(width, kLanes)),
      count_(block_count(vectors_, kPanelVectors)) {}

Lane Panels::lane(Index column, Index rows) const {
  const Index vector = column / kLanes;
  // The last one whose first vector, vectors_ * panel / count_, is not beyond this.
  const Index panel = ((vector + 1) * count_ - 1) / vectors_;
  return {offset(panel, rows) + column - first_column(panel), vectors(panel) * kLanes};
}

void Panels::pack(const ConstMatrixRef& columns, Index rows, double* panels) const {
  std::fill(panels, panels + size(rows), 0.0);
  for (Index panel = 0; panel < count(); ++panel) {
    const Index first = first_column(panel), row_size = vectors(panel) * kLanes;
    const Index used = std::min(row_size, width_ - first);
    double* target = panels + offset(panel, rows);
    for (Index i = 0; i < columns.rows(); ++i) {
      Eigen::Map<Vector>(target + i * row_size, used) = columns.row(i).segment(first, used);
    }
  }
}

Matrix Panels::unpack(const double* panels, Index used_rows, Index rows) const {
  Matrix columns(used_rows, width_);
  for (Index panel = 0; panel < count(); ++panel) {
    const Index first = first_column(panel), row_size = vectors(panel) * kLanes;
    const Index used = std::min(row_size, width_ - first);
    const double* source = panels + offset(panel, rows);
    for (Index i = 0; i < used_rows; ++i) {
      columns.row(i).segment(first, used) = VectorView(source + i * row_size, used).transpose();
    }
  }
  return columns;
}

void Panels::clear_row(Index row, Index rows, double* panels) const {
  for (Index panel = 0; panel < count(); ++panel) {
    const Index row_size = vectors(panel) * kLanes;
    double* target = panels + offset(panel, rows) + row * row_size;
    std::fill(target, target + row_size, 0.0);
  }
}

void gather_columns(const Panels& from, const double* source, const std::vector<Index>& rows,
                    Index source_rows, const std::vector<Index>& columns, const Panels& to,
                    double* target) {
  const auto target_rows = static_cast<Index>(rows.size());
  std::fill(target, target + to.size(target_rows), 0.0);
  for (std::size_t j = 0; j < columns.size(); ++j) {
    const Lane in = from.lane(columns[j], source_rows);
    const Lane out = to.lane(static_cast<Index>(j), target_rows);
    for (Index i = 0; i < target_rows; ++i) {
      target[out.offset + i * out.stride] =
          source[in.offset + rows[static_cast<std::size_t>(i)] * in.stride];
    }
  }
}

void scatter_columns(const Panels& from, const double* source, Index rows, const Panels& to,
                     const std::vector<Index>& columns, double* target) {
  for (std::size_t j = 0; j < columns.size(); ++j) {
    const Lane in = from.lane(static_cast<Index>(j), rows);
    const Lane out = to.lane(columns[j], rows);
    for (Index i = 0; i < rows; ++i) {
      target[out.offset + i * out.stride] = source[in.offset + i * in.stride];
    }
  }
}

Strips::Strips(const ConstMatrixRef& matrix)
    : rows_(matrix.rows()),
      columns_(matrix.cols()),
      data_(large_vector(count() * kStripRows * columns_)) {
  data_.setZero();
  for (Index i = 0; i < rows_; ++i) {
    double* target = data_.data() + (i / kStripRows) * kStripRows * columns_ + i % kStripRows;
    for (Index k = 0; k < columns_; ++k) target[k * kStripRows] = matrix(i, k);
  }
}

namespace {

/// How the tiles of a product are dealt out: blocks of strips, few enough to stay in the
/// second-level cache, by ranges of panels, so that more threads do not read more. Every tile is
/// computed whole by one task: the cut leaves no trace in the result.
class TaskGrid {
 public:
  TaskGrid(Index strips, Index panels, Index cached_strips, int threads)
      : strips_(strips), panels_(panels) {
    constexpr Index kTasksPerThread = 4;
    const Index wanted = threads > 1 ? kTasksPerThread * threads : 1;
    const Index largest = std::max<Index>(1, cached_strips);
    const Index ranges = std::min(panels, block_count(wanted, block_count(strips, largest)));
    panels_a_task_ = block_count(panels, ranges);
    const Index rows_of_tasks = block_count(wanted, block_count(panels, panels_a_task_));
    strips_a_task_ = even_part(strips, std::min(largest, block_count(strips, rows_of_tasks)));
  }

  Index count() const { return block_count(strips_, strips_a_task_) * ranges(); }
  Block strips(Index task) const { return block_at(task / ranges(), strips_, strips_a_task_); }
  Block panels(Index task) const { return block_at(task % ranges(), panels_, panels_a_task_); }

 private:
  Index ranges() const { return block_count(panels_, panels_a_task_); }

  Index strips_;
  Index panels_;
  Index strips_a_task_;
  Index panels_a_task_;
};

/// left * right over `total` columns of left: all in order, or those listed where Chosen.
template <bool Chosen>
bool multiply_columns(const Strips& left, const Index* columns, Index total, const Panels& panels,
                      const double* right, Index right_rows, double* out, Team& team,
                      Control* control, TileObserver* observer) {
  const Index depth = even_part(total, kDepthBlock);
  const Index rows = left.padded_rows();
  const double work = 2.0 * static_cast<double>(rows) * static_cast<double>(total) *
                      static_cast<double>(panels.padded_width());
  const TaskGrid grid(left.count(), panels.count(), kCachedNumbers / (depth * kStripRows),
                      team.size());
  return team.for_each(grid.count(), work, control, [&](Index task) {
    const Block part = grid.strips(task), range = grid.panels(task);
    for (Index k = 0; k < total; k += depth) {
      const Index length = std::min(depth, total - k);
      const bool finished = k + length == total;
      const Index* chosen = Chosen ? columns + k : nullptr;
      const Index next_column = finished ? 0 : Chosen ? columns[k + length] : k + length;
      for (Index panel = range.begin; panel < range.begin + range.size; ++panel) {
        const Index row_size = panels.vectors(panel) * kLanes;
        const double* factor = right + panels.offset(panel, right_rows) + k * row_size;
        // Every strip fetches a part of the next panel, every panel a part of a strip's next block.
        const bool last = panel + 1 == range.begin + range.size;
        const Index next = last ? range.begin : panel + 1;
        const Index next_row = last ? k + length : k;
        const double* next_panel =
            right + panels.offset(next, right_rows) +
            (next_row < total ? next_row : 0) * panels.vectors(next) * kLanes;
        for (Index s = part.begin; s < part.begin + part.size; ++s) {
          const double* strip = left.strip(s) + (Chosen ? 0 : k * kStripRows);
          const Ahead ahead{
              left.strip(s) +
                  (next_column + length * (panel - range.begin) / range.size) * kStripRows,
              next_panel + length * (s - part.begin) / part.size * row_size};
          double* target = out + panels.offset(panel, rows) + s * kStripRows * row_size;
          with_panel_vectors(panels.vectors(panel), [&](auto vectors) {
            tile<vectors, Chosen>(strip, chosen, factor, length, k == 0, target, ahead);
          });
          if (finished && observer) {
            observer->see(panel, block_at(s, rows, kStripRows), target);
          }
        }
      }
    }
  });
}

}  // namespace

bool multiply(const Strips& left, const Panels& panels, const double* right, Index right_rows,
              double* out, Team& team, Control* control, TileObserver* observer) {
  return multiply_columns<false>(left, nullptr, left.columns(), panels, right, right_rows, out,
                                 team, control, observer);
}

bool multiply(const Strips& left, const std::vector<Index>& columns, const Panels& panels,
              const double* right, double* out, Team& team, Control* control) {
  const auto total = static_cast<Index>(columns.size());
  return multiply_columns<true>(left, columns.data(), total, panels, right, total, out, team,
                                control, nullptr);
}

}  // namespace reluflow
