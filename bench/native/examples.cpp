#include "examples.hpp"

#include <cmath>

#include "reluflow/random.hpp"

using namespace reluflow;

namespace {

Matrix normals(Index rows, Index columns, std::uint64_t seed, std::uint64_t block) {
  Matrix drawn(rows, columns);
  fill_normals({seed, block, DrawPurpose::normals}, drawn.data(), drawn.size());
  return drawn;
}

Vector alternating(Index count) {
  return Vector::NullaryExpr(count, [](Index i) { return i % 2 == 0 ? 1.0 : -1.0; });
}

}  // namespace

Examples random_examples(Index n, Index d, Index m, std::uint64_t seed) {
  const Matrix weights = 1e-2 / std::sqrt(static_cast<double>(d)) * normals(m, d, seed, 1);
  return {
      normals(n, d, seed, 0), alternating(n), {weights, Vector::Zero(m), 1e-2 * alternating(m)}};
}
