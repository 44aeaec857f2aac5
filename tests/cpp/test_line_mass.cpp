#include <cmath>
#include <limits>

#include "check.hpp"
#include "reluflow/line_mass.hpp"

using namespace reluflow;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double log_mass_of_half_line(double beta) {
  // N = relu(beta - t) - relu(t - beta) <= 0 from t = beta on.
  Matrix preactivations(1, 2);
  preactivations << beta, -beta;
  Vector slopes(2), output(2), lower(1), upper(1);
  slopes << -1, 1;
  output << 1, -1;
  lower << -kInfinity;
  upper << kInfinity;
  const auto view = [](const Vector& v) { return VectorView(v.data(), v.size()); };
  return log_line_masses(MatrixView(preactivations.data(), 1, 2), view(slopes), view(output), 0.0,
                         view(lower), view(upper), Flip::nonstrict, 1)[0];
}

}  // namespace

TEST_CASE(tails_meet_where_their_formulas_change) {
  // d log Q/dt = -(t + 1/t - ...) is about -20.05 there.
  const double step = 1e-9;
  const double below = log_upper_tail(20.0 - step), above = log_upper_tail(20.0 + step);
  CHECK(std::abs(below - above - 2 * step * 20.05) < 1e-12 * std::abs(above));
}

TEST_CASE(tails_far_out_follow_their_asymptotic_series) {
  // log Q(t) = -t^2/2 - log(t sqrt(2 pi)) + log(1 - 1/t^2 + 3/t^4 - ...).
  const double t = 2269.0;
  const double series = -t * t / 2 - std::log(t * std::sqrt(2 * std::acos(-1.0))) - 1 / (t * t);
  CHECK(std::abs(log_upper_tail(t) / series - 1) < 1e-15);
}

TEST_CASE(a_half_line_has_the_mass_of_its_tail) {
  for (const double beta : {-2.0, 0.0, 1.0, 30.0, 2269.0}) {
    const double tail = log_upper_tail(beta);
    CHECK(std::abs(log_mass_of_half_line(beta) - tail) <= 1e-14 * std::abs(tail));
  }
}

TEST_CASE(empty_intervals_have_no_mass) {
  CHECK(log_normal_mass(1.0, 1.0) == -kInfinity);
  CHECK(log_normal_mass(2.0, 1.0) == -kInfinity);
  CHECK(log_normal_mass(-kInfinity, kInfinity) == 0.0);
}
