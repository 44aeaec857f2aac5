#pragma once

#include "reluflow/parallel.hpp"
#include "reluflow/types.hpp"

namespace reluflow {

/// Rows of a product that one task computes.
inline constexpr Index kRowBlock = 64;
/// Columns of a product that one task computes when the product is wide.
inline constexpr Index kColumnBlock = 1024;

/// out = left * right, cut into tiles that do not depend on the number of threads. `left` and
/// `right` may be any dense expressions that Eigen multiplies without a copy.
template <class Left, class Right, class Out>
bool multiply(const Left& left, const Right& right, Out&& out, int num_threads,
              Control* control = nullptr) {
  const Index row_blocks = block_count(out.rows(), kRowBlock);
  const Index column_blocks = block_count(out.cols(), kColumnBlock);
  const double work = 2.0 * static_cast<double>(left.rows()) * static_cast<double>(left.cols()) *
                      static_cast<double>(right.cols());
  return parallel_for(
      row_blocks * column_blocks, threads_for(work, num_threads), control, [&](Index task) {
        const Block rows = block_at(task / column_blocks, out.rows(), kRowBlock);
        const Block columns = block_at(task % column_blocks, out.cols(), kColumnBlock);
        out.block(rows.begin, columns.begin, rows.size, columns.size).noalias() =
            left.middleRows(rows.begin, rows.size) * right.middleCols(columns.begin, columns.size);
      });
}

}  // namespace reluflow
