#include <algorithm>
#include <numeric>

#include "check.hpp"
#include "reluflow/panels.hpp"

using namespace reluflow;

namespace {

struct Operands {
  Strips left;
  Panels panels;
  Vector right;
};

// A right operand that is zero outside the given rows and columns.
Operands operands(Index rows, Index depth, Index width, const std::vector<Index>& kept_rows,
                  const std::vector<Index>& kept_columns) {
  Matrix right = Matrix::Zero(depth, width);
  for (const Index i : kept_rows) {
    for (const Index j : kept_columns)
      right(i, j) = std::sin(static_cast<double>(7 * i + 13 * j + 1));
  }
  Matrix left(rows, depth);
  for (Index i = 0; i < left.size(); ++i) {
    left.data()[i] = std::cos(static_cast<double>(11 * i + 3));
  }
  Operands made{Strips(left), Panels(width), Vector()};
  made.right.resize(made.panels.size(depth));
  made.panels.pack(right, depth, made.right.data());
  return made;
}

}  // namespace

TEST_CASE(leaving_out_zeros_changes_no_bit_of_a_product) {
  const Index rows = 33, depth = 1100, width = 61;
  std::vector<Index> kept_rows, kept_columns;
  for (Index i = 5; i < depth; i += 3) kept_rows.push_back(i);
  for (Index j = 0; j < width; j += 2) kept_columns.push_back(j);
  const Operands o = operands(rows, depth, width, kept_rows, kept_columns);
  const Index out_rows = o.left.padded_rows();
  Team team;
  Vector full(o.panels.size(out_rows));
  multiply(o.left, o.panels, o.right.data(), depth, full.data(), team, nullptr);

  const Panels kept(static_cast<Index>(kept_columns.size()));
  Vector gathered(kept.size(static_cast<Index>(kept_rows.size())));
  gather_columns(o.panels, o.right.data(), kept_rows, depth, kept_columns, kept, gathered.data());
  Vector product(kept.size(out_rows)), spread = Vector::Zero(full.size());
  multiply(o.left, kept_rows, kept, gathered.data(), product.data(), team, nullptr);
  scatter_columns(kept, product.data(), out_rows, o.panels, kept_columns, spread.data());
  CHECK(full.cwiseAbs().maxCoeff() > 0.1);
  CHECK(std::equal(full.data(), full.data() + full.size(), spread.data()));
}

TEST_CASE(panels_made_on_the_way_change_no_bit_of_a_product) {
  const Index rows = 29, depth = 410, width = 331;
  std::vector<Index> all_rows(depth), all_columns(width);
  std::iota(all_rows.begin(), all_rows.end(), Index{0});
  std::iota(all_columns.begin(), all_columns.end(), Index{0});
  const Operands o = operands(rows, depth, width, all_rows, all_columns);
  for (const int threads : {1, 2, 3}) {
    Team::run(threads, [&](Team& team) {
      const Index size = o.panels.size(o.left.padded_rows());
      Vector full(size), streamed(size), room;
      multiply(o.left, o.panels, o.right.data(), depth, full.data(), team, nullptr);
      const auto source = [&](Index panel, double* numbers) {
        const Index count = o.panels.vectors(panel) * kLanes * depth;
        std::copy_n(o.right.data() + o.panels.offset(panel, depth), count, numbers);
      };
      multiply(o.left, o.panels, source, streamed.data(), team, nullptr, nullptr, room);
      CHECK(std::equal(full.data(), full.data() + size, streamed.data()));
    });
  }
}

TEST_CASE(a_lane_walks_down_one_column) {
  const Index rows = 4, width = 29;
  const Panels panels(width);
  Matrix columns(rows, width);
  for (Index i = 0; i < columns.size(); ++i) columns.data()[i] = static_cast<double>(i);
  Vector packed(panels.size(rows));
  panels.pack(columns, rows, packed.data());
  for (Index j = 0; j < width; ++j) {
    const Lane lane = panels.lane(j, rows);
    for (Index i = 0; i < rows; ++i) CHECK(packed[lane.offset + i * lane.stride] == columns(i, j));
  }
}
