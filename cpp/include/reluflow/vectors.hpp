#pragma once

#include <algorithm>
#include <array>

#include "reluflow/parallel.hpp"
#include "reluflow/team.hpp"
#include "reluflow/types.hpp"

namespace reluflow {

/// Numbers of a long vector that one task handles; sums are cut here, whatever the threads.
inline constexpr Index kVectorBlock = 1 << 14;
/// Such loops wait for memory: a number moved costs as much as so many operations.
inline constexpr double kOperationsPerNumber = 10.0;

/// out = expression, number by number, for an Eigen expression of `terms` vectors as long as out.
template <class Expression>
void assign(Team& team, Vector& out, int terms, const Expression& expression) {
  const double work = kOperationsPerNumber * terms * static_cast<double>(out.size());
  team.for_each(block_count(out.size(), kVectorBlock), work, nullptr, [&](Index index) {
    const Block part = block_at(index, out.size(), kVectorBlock);
    out.segment(part.begin, part.size) = expression.segment(part.begin, part.size);
  });
}

/// Sum of part(begin, size) over the blocks of a vector of so many numbers, in their order.
template <class Part>
double sum_over_blocks(Team& team, Index total, const Part& part) {
  constexpr Index kMostBlocks = 64;
  const Index size = std::max(kVectorBlock, block_count(total, kMostBlocks));
  std::array<double, kMostBlocks> sums{};
  const double work = 2 * kOperationsPerNumber * static_cast<double>(total);
  team.for_each(block_count(total, size), work, nullptr, [&](Index index) {
    const Block block = block_at(index, total, size);
    sums[static_cast<std::size_t>(index)] = part(block.begin, block.size);
  });
  double sum = 0.0;
  for (const double s : sums) sum += s;
  return sum;
}

/// Sum of left * right, expressions of one length.
template <class Left, class Right>
double dot(Team& team, const Left& left, const Right& right) {
  return sum_over_blocks(team, left.size(), [&](Index begin, Index size) {
    return left.segment(begin, size).dot(right.segment(begin, size));
  });
}

/// Sum of the squares of an expression.
template <class Expression>
double squared_norm(Team& team, const Expression& expression) {
  return sum_over_blocks(team, expression.size(), [&](Index begin, Index size) {
    return expression.segment(begin, size).squaredNorm();
  });
}

}  // namespace reluflow
