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
// Numbers of the panels that stay in the third-level cache over all strips.
constexpr Index kSharedNumbers = 128'000;
// Numbers of a left operand that may be read for every range of panels, and of a right one that is
// not worth it yet.
constexpr Index kStreamedLeft = 200'000, kLongRight = 8 * kSharedNumbers;

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
/// second-level cache, by ranges of panels, few enough to stay in the third-level one and one after
/// the other, so that more threads do not read more. Every tile is computed whole by one task: the
/// cut leaves no trace in the result.
class TaskGrid {
 public:
  TaskGrid(Index strips, Index panels, Index cached_strips, Index cached_panels, int threads)
      : strips_(strips), panels_(panels) {
    const Index wanted = wanted_tasks(threads);
    const Index largest = std::max<Index>(1, cached_strips);
    const Index ranges = std::max(block_count(panels, std::max<Index>(1, cached_panels)),
                                  block_count(wanted, block_count(strips, largest)));
    panels_a_task_ = block_count(panels, std::min(panels, ranges));
    const Index rows_of_tasks = block_count(wanted, block_count(panels, panels_a_task_));
    strips_a_task_ = even_part(strips, std::min(largest, block_count(strips, rows_of_tasks)));
  }

  static Index wanted_tasks(int threads) {
    constexpr Index kTasksPerThread = 4;
    return threads > 1 ? kTasksPerThread * threads : 1;
  }

  Index count() const { return blocks() * block_count(panels_, panels_a_task_); }
  Block strips(Index task) const { return block_at(task % blocks(), strips_, strips_a_task_); }
  Block panels(Index task) const { return block_at(task / blocks(), panels_, panels_a_task_); }

 private:
  Index blocks() const { return block_count(strips_, strips_a_task_); }

  Index strips_;
  Index panels_;
  Index strips_a_task_;
  Index panels_a_task_;
};

/// left * right over `total` columns of left: all in order, or those listed where Chosen.
template <bool Chosen>
class Product {
 public:
  Product(const Strips& left, const Index* columns, Index total, const Panels& panels,
          Index right_rows, double* out, TileObserver* observer)
      : left_(left),
        columns_(columns),
        total_(total),
        depth_(even_part(total, kDepthBlock)),
        panels_(panels),
        right_rows_(right_rows),
        out_(out),
        observer_(observer) {}

  /// Strips that stay in the second-level cache.
  Index cached_strips() const { return std::max<Index>(1, kCachedNumbers / (depth_ * kStripRows)); }
  /// Panels of which so many rows stay in the third-level cache.
  Index cached_panels(Index rows) const {
    return std::max<Index>(1, kSharedNumbers / (rows * kPanelVectors * kLanes));
  }
  /// Panels of right whose part for a block stays there.
  Index cached_panels() const { return cached_panels(depth_); }
  /// Floating-point operations.
  double work() const {
    return 2.0 * static_cast<double>(left_.padded_rows()) * static_cast<double>(total_) *
           static_cast<double>(panels_.padded_width());
  }

  /// The tiles of a block of strips and a range of panels; `right` begins with that range.
  void multiply(Block part, Block range, const double* right) const {
    for (Index k = 0; k < total_; k += depth_) {
      for (Index panel = range.begin; panel < range.begin + range.size; ++panel) {
        multiply_panel(part, range, panel, k, right);
      }
    }
  }

 private:
  /// Row k and on of a panel.
  const double* rows_of(const double* right, Block range, Index panel, Index k) const {
    return right + panels_.offset(panel, right_rows_) - panels_.offset(range.begin, right_rows_) +
           k * panels_.vectors(panel) * kLanes;
  }

  void multiply_panel(Block part, Block range, Index panel, Index k, const double* right) const {
    const Index length = std::min(depth_, total_ - k), rows = left_.padded_rows();
    const bool finished = k + length == total_;
    const Index* chosen = Chosen ? columns_ + k : nullptr;
    const Index next_column = finished ? 0 : Chosen ? columns_[k + length] : k + length;
    const Index row_size = panels_.vectors(panel) * kLanes;
    const double* factor = rows_of(right, range, panel, k);
    // Every strip fetches a part of the next panel, every panel a part of a strip's next block.
    const bool last = panel + 1 == range.begin + range.size;
    const Index next_row = last ? k + length : k;
    const double* next_panel =
        rows_of(right, range, last ? range.begin : panel + 1, next_row < total_ ? next_row : 0);
    for (Index s = part.begin; s < part.begin + part.size; ++s) {
      const double* strip = left_.strip(s) + (Chosen ? 0 : k * kStripRows);
      const Ahead ahead{
          left_.strip(s) + (next_column + length * (panel - range.begin) / range.size) * kStripRows,
          next_panel + length * (s - part.begin) / part.size * row_size};
      double* target = out_ + panels_.offset(panel, rows) + s * kStripRows * row_size;
      with_panel_vectors(panels_.vectors(panel), [&](auto vectors) {
        tile<vectors, Chosen>(strip, chosen, factor, length, k == 0, target, ahead);
      });
      if (finished && observer_) observer_->see(panel, block_at(s, rows, kStripRows), target);
    }
  }

  const Strips& left_;
  const Index* columns_;
  Index total_;
  Index depth_;
  const Panels& panels_;
  Index right_rows_;
  double* out_;
  TileObserver* observer_;
};

template <bool Chosen>
bool run(const Product<Chosen>& product, const Strips& left, const Panels& panels,
         const double* right, Index right_rows, Team& team, Control* control) {
  const TaskGrid grid(left.count(), panels.count(), product.cached_strips(),
                      product.cached_panels(), team.size());
  return team.for_each(grid.count(), product.work(), control, [&](Index task) {
    const Block range = grid.panels(task);
    product.multiply(grid.strips(task), range, right + panels.offset(range.begin, right_rows));
  });
}

}  // namespace

bool worth_streaming(const Strips& left, const Panels& panels) {
  const Index left_size = left.padded_rows() * left.columns();
  return left_size <= kStreamedLeft && panels.size(left.columns()) >= kLongRight;
}

bool multiply(const Strips& left, const Panels& panels, const double* right, Index right_rows,
              double* out, Team& team, Control* control, TileObserver* observer) {
  const Product<false> product(left, nullptr, left.columns(), panels, right_rows, out, observer);
  return run(product, left, panels, right, right_rows, team, control);
}

bool multiply(const Strips& left, const Panels& panels, const PanelSource& right, double* out,
              Team& team, Control* control, TileObserver* observer, Vector& room) {
  const Index rows = left.columns();
  const Product<false> product(left, nullptr, rows, panels, rows, out, observer);
  const Index range_size =
      std::min(product.cached_panels(rows),
               block_count(panels.count(), TaskGrid::wanted_tasks(team.size())));
  const Index room_a_thread = range_size * kPanelVectors * kLanes * rows;
  make_room(room, team.size() * room_a_thread);
  const Index ranges = block_count(panels.count(), range_size);
  return team.for_each(ranges, product.work(), control, [&](Index index) {
    const Block range = block_at(index, panels.count(), range_size);
    double* own = room.data() + team.seat() * room_a_thread;
    for (Index p = range.begin; p < range.begin + range.size; ++p) {
      right(p, own + panels.offset(p, rows) - panels.offset(range.begin, rows));
    }
    const Index strips = even_part(left.count(), product.cached_strips());
    for (Index b = 0; b < block_count(left.count(), strips); ++b) {
      product.multiply(block_at(b, left.count(), strips), range, own);
    }
  });
}

bool multiply(const Strips& left, const std::vector<Index>& columns, const Panels& panels,
              const double* right, double* out, Team& team, Control* control) {
  const auto total = static_cast<Index>(columns.size());
  const Product<true> product(left, columns.data(), total, panels, total, out, nullptr);
  return run(product, left, panels, right, total, team, control);
}

}  // namespace reluflow
