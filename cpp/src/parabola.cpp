#include "reluflow/parabola.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace reluflow {
namespace {

/// Touches both lines, at -w/(4k) and w/(4k).
Parabola touching_both(double k, double w) {
  Parabola q{};
  q.linear = w / 2;
  q.linear_w = 0.5;
  q.fixed = w * w / (16 * k);
  q.fixed_k = -q.fixed / k;
  q.fixed_w = w / (8 * k);
  q.fixed_kk = 2 * q.fixed / (k * k);
  q.fixed_kw = -q.fixed_w / k;
  q.fixed_ww = 1 / (8 * k);
  return q;
}

/// (sqrt(k) (end - z) - sqrt(w end))^2: touches 0 on the left, passes through (end, w end).
Parabola through_right_end(double k, double w, double end) {
  const double root = std::sqrt(k * w * end);
  Parabola q{};
  q.linear = 2 * (root - k * end);
  q.linear_k = root / k - 2 * end;
  q.linear_w = root / w;
  q.linear_kk = -root / (2 * k * k);
  q.linear_kw = root / (2 * k * w);
  q.linear_ww = -root / (2 * w * w);
  q.fixed = std::pow(std::sqrt(k) * end - std::sqrt(w * end), 2);
  q.fixed_k = end * (end - root / k);
  q.fixed_w = end * (1 - root / w);
  q.fixed_kk = -end * q.linear_kk;
  q.fixed_kw = -end * q.linear_kw;
  q.fixed_ww = -end * q.linear_ww;
  return q;
}

/// The same for relu(-z) = relu(z) - z.
Parabola through_left_end(double k, double w, double end) {
  Parabola q = through_right_end(k, w, end);
  q.linear = w - q.linear;
  q.linear_k = -q.linear_k;
  q.linear_w = 1 - q.linear_w;
  q.linear_kk = -q.linear_kk;
  q.linear_kw = -q.linear_kw;
  q.linear_ww = -q.linear_ww;
  return q;
}

Parabola through_both_ends(double k, double w, double low, double high) {
  Parabola q{};
  q.linear_w = high / (high - low);
  q.linear_k = -(low + high);
  q.linear = w * q.linear_w + k * q.linear_k;
  q.fixed_w = -low * q.linear_w;
  q.fixed_k = low * high;
  q.fixed = w * q.fixed_w + k * q.fixed_k;
  return q;
}

/// The maximum of -(k z^2 + slope z) over -length <= z <= 0.
double deepest(double k, double slope, double length) {
  const double at = slope / (2 * k);
  if (at <= 0.0) return 0.0;
  return at <= length ? slope * at / 2 : length * (slope - k * length);
}

}  // namespace

Parabola parabola_above(double k, double w, double low, double high) {
  const double near = std::min(-low, high), length = high - low;
  if (w <= 4 * k * near) return touching_both(k, w);
  if (k * length * length < w * near) return through_both_ends(k, w, low, high);
  return high <= -low ? through_right_end(k, w, high) : through_left_end(k, w, -low);
}

double least_fixed(double k, double w, double linear, double low, double high, double& magnitude) {
  const double left = deepest(k, linear, -low), right = deepest(k, w - linear, high);
  const double fixed = std::max(left, right);
  // Where the minimum lies outside, twice the reach of the line is what cancels.
  magnitude = fixed + 2 * std::abs(linear) * std::min(-low, std::abs(linear) / (2 * k)) +
              2 * (w + std::abs(linear)) * std::min(high, (w + std::abs(linear)) / (2 * k));
  return fixed;
}

double touching_curvature(double w, double z, double low, double high) {
  if (z == 0.0) return std::numeric_limits<double>::infinity();
  const double distance = std::abs(z), other = std::min(distance, z < 0.0 ? high : -low);
  return w * other / ((distance + other) * (distance + other));
}

}  // namespace reluflow
