#include <cmath>
#include <vector>

#include "check.hpp"
#include "reluflow/random.hpp"
#include "reluflow/sampling.hpp"

using namespace reluflow;

TEST_CASE(philox_gives_the_published_bits) {
  // Random123's known answer for the digits of pi, in every lane.
  const std::uint64_t counter[4] = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};
  const std::uint64_t bits[4] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  PhiloxLanes lanes;
  for (int w = 0; w < 4; ++w) {
    for (Index i = 0; i < kRandomLanes; ++i) lanes.word[w][i] = counter[w];
  }
  philox4x32(0x299f31d0a4093822u, lanes);
  for (int w = 0; w < 4; ++w) {
    for (Index i = 0; i < kRandomLanes; ++i) CHECK(lanes.word[w][i] == bits[w]);
  }
}

TEST_CASE(normals_have_unit_variance) {
  const Index count = 200001;
  Vector normals(count);
  fill_normals({1, 2, DrawPurpose::normals}, normals.data(), count);
  const double n = static_cast<double>(count);
  CHECK(std::abs(normals.sum() / n) < 5 / std::sqrt(n));
  CHECK(std::abs(normals.squaredNorm() / n - 1) < 5 * std::sqrt(2 / n));
}

TEST_CASE(linear_classifier_errs_as_often_as_its_distance_says) {
  // N = relu(z) - relu(-z) = z with z = 1 + g on one cluster and -1 + g on the other: Phi(-1).
  Matrix offsets(2, 2), factors(2, 1);
  offsets << 1, -1, -1, 1;
  factors << 1, -1;
  Vector scales = Vector::Ones(2), output(2), labels(2);
  output << 1, -1;
  labels << 1, -1;
  const ClusterActivations clusters{{offsets.data(), 2, 2},
                                    {factors.data(), 2, 1},
                                    {scales.data(), 2},
                                    {output.data(), 2},
                                    {labels.data(), 2}};
  const ErrorCounts counts = count_errors(clusters, 3, 0, 50, false, 2);
  const double n = 50.0 * static_cast<double>(kSampleBlock), p = 0.5 * std::erfc(std::sqrt(0.5));
  CHECK(counts.blocks == 50);
  CHECK(static_cast<double>(counts.draws[0] + counts.draws[1]) == n);
  const double errors = static_cast<double>(counts.errors[0] + counts.errors[1]);
  CHECK(std::abs(errors - n * p) < 5 * std::sqrt(n * p * (1 - p)));
}
