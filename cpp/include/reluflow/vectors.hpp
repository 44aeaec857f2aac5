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

/// Sum of left * right, expressions of one length.
template <class Left, class Right>
double dot(Team& team, const Left& left, const Right& right) {
  constexpr Index kMostBlocks = 64;
  const Index size = std::max(kVectorBlock, block_count(left.size(), kMostBlocks));
  std::array<double, kMostBlocks> sums{};
  const double work = 2 * kOperationsPerNumber * static_cast<double>(left.size());
  team.for_each(block_count(left.size(), size), work, nullptr, [&](Index index) {
    const Block part = block_at(index, left.size(), size);
    sums[static_cast<std::size_t>(index)] =
        left.segment(part.begin, part.size).dot(right.segment(part.begin, part.size));
  });
  double sum = 0.0;
  for (const double s : sums) sum += s;
  return sum;
}

}  // namespace reluflow
