#include <cmath>

#include "check.hpp"
#include "reluflow/vectors.hpp"

using namespace reluflow;

namespace {

// Long enough for many blocks, the last one not full.
constexpr Index kLength = 40 * kVectorBlock + 17;

}  // namespace

TEST_CASE(sums_and_combinations_do_not_depend_on_the_threads) {
  Vector left(kLength), right(kLength);
  for (Index i = 0; i < kLength; ++i) {
    left[i] = std::sin(static_cast<double>(i));
    right[i] = std::cos(static_cast<double>(3 * i));
  }
  const Vector combined = left + 0.3 * right;
  double alone = 0.0;
  for (const int threads : {1, 2, 3, 5}) {
    Team::run(threads, [&](Team& team) {
      const double sum = dot(team, left, right);
      if (threads == 1) alone = sum;
      CHECK(sum == alone);
      CHECK(std::abs(sum - left.dot(right)) <= 1e-12 * left.norm() * right.norm());
      Vector out(kLength);
      assign(team, out, 2, left + 0.3 * right);
      CHECK((out.array() == combined.array()).all());
    });
  }
}

TEST_CASE(the_sum_over_a_vector_longer_than_all_blocks_is_whole) {
  // Sums of integers below 2^53 are exact in any order.
  const Vector numbers = Vector::Ones(100 * kVectorBlock + 1);
  Team team;
  CHECK(dot(team, numbers, numbers) == static_cast<double>(numbers.size()));
}
