#pragma once

#include "reluflow/parallel.hpp"
#include "reluflow/team.hpp"
#include "reluflow/types.hpp"

namespace reluflow {

/// Rows of a product that one task computes.
inline constexpr Index kRowBlock = 64;
/// Columns of a product that one task computes when the product is wide.
inline constexpr Index kColumnBlock = 1024;

/// The tiles of out = left * right, which do not depend on the number of threads. `left` and
/// `right` may be any dense expressions that Eigen multiplies without a copy.
template <class Left, class Right, class Out>
class ProductTiles {
 public:
  ProductTiles(const Left& left, const Right& right, Out& out)
      : left_(left),
        right_(right),
        out_(out),
        row_blocks_(block_count(out.rows(), kRowBlock)),
        column_blocks_(block_count(out.cols(), kColumnBlock)) {}

  Index count() const { return row_blocks_ * column_blocks_; }
  /// Floating-point operations of all tiles.
  double work() const {
    return 2.0 * static_cast<double>(left_.rows()) * static_cast<double>(left_.cols()) *
           static_cast<double>(right_.cols());
  }
  void operator()(Index tile) const {
    const Block rows = block_at(tile / column_blocks_, out_.rows(), kRowBlock);
    const Block columns = block_at(tile % column_blocks_, out_.cols(), kColumnBlock);
    out_.block(rows.begin, columns.begin, rows.size, columns.size).noalias() =
        left_.middleRows(rows.begin, rows.size) * right_.middleCols(columns.begin, columns.size);
  }

 private:
  const Left& left_;
  const Right& right_;
  Out& out_;
  Index row_blocks_;
  Index column_blocks_;
};

/// out = left * right. Returns false, with tiles left out, when `control` asks to stop.
template <class Left, class Right, class Out>
bool multiply(const Left& left, const Right& right, Out&& out, int num_threads,
              Control* control = nullptr) {
  const ProductTiles tiles(left, right, out);
  return parallel_for(tiles.count(), threads_for(tiles.work(), num_threads), control, tiles);
}

/// The same inside a team's work.
template <class Left, class Right, class Out>
bool multiply(const Left& left, const Right& right, Out&& out, Team& team,
              Control* control = nullptr) {
  const ProductTiles tiles(left, right, out);
  return team.for_each(tiles.count(), tiles.work(), control, tiles);
}

/// Inner products of the rows of a matrix, with 1 more where a bias feature is part of them. Zeros
/// are left where `control` asks to stop.
inline Matrix gram_matrix(const MatrixView& rows, bool bias_feature, Team& team,
                          Control* control = nullptr) {
  constexpr Index kBlock = 128;
  const Index n = rows.rows(), blocks = block_count(n, kBlock);
  Matrix gram = Matrix::Zero(n, n);
  const double work = static_cast<double>(n) * static_cast<double>(n * rows.cols());
  // Of row after row of blocks, those up to the diagonal.
  team.for_each(blocks * blocks, work, control, [&](Index task) {
    if (task % blocks > task / blocks) return;
    const Block i = block_at(task / blocks, n, kBlock), l = block_at(task % blocks, n, kBlock);
    auto part = gram.block(i.begin, l.begin, i.size, l.size);
    part.noalias() =
        rows.middleRows(i.begin, i.size) * rows.middleRows(l.begin, l.size).transpose();
    if (bias_feature) part.array() += 1.0;
    if (i.begin != l.begin) {
      gram.block(l.begin, i.begin, l.size, i.size) = part.transpose();
    } else {
      // Rounded entry by entry, the product need not be symmetric.
      part.template triangularView<Eigen::StrictlyUpper>() = part.transpose().eval();
    }
  });
  return gram;
}

}  // namespace reluflow
