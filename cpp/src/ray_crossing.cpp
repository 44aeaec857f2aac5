#include "reluflow/ray_crossing.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "reluflow/parallel.hpp"
#include "reluflow/rounding.hpp"

namespace reluflow {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Roundings in one term v relu(a + t d), with one more for a breakpoint t = -a/d.
constexpr double kTermRoundings = 4.0;

using Breakpoint = std::pair<double, Index>;

std::vector<Breakpoint> sorted_breakpoints(const Ray& ray) {
  std::vector<Breakpoint> breakpoints;
  for (Index j = 0; j < ray.slopes.size(); ++j) {
    const double a = ray.preactivations[j], d = ray.slopes[j];
    if (a * d < 0.0 && ray.output[j] != 0.0) breakpoints.emplace_back(-a / d, j);
  }
  std::sort(breakpoints.begin(), breakpoints.end());
  return breakpoints;
}

/// The line that N follows on one segment of the ray, and how far rounding blurs it.
class Segment {
 public:
  explicit Segment(const Ray& ray)
      : ray_(ray), active_(static_cast<std::size_t>(ray.slopes.size())) {
    value_ = ray.constant;
    for (Index j = 0; j < ray.slopes.size(); ++j) {
      const double a = ray.preactivations[j], d = ray.slopes[j], v = ray.output[j];
      value_blur_ += std::abs(v * a);
      slope_blur_ += std::abs(v * d);
      active_[index(j)] = a > 0.0 || (a == 0.0 && d > 0.0);
      if (active_[index(j)]) add(j, 1.0);
    }
    const double terms = static_cast<double>(ray.slopes.size()) + kTermRoundings;
    value_blur_ = terms * kUnitRoundoff * (value_blur_ + std::abs(ray.constant));
    slope_blur_ *= terms * kUnitRoundoff;
  }

  /// N at t: from the running sums where those decide its sign, otherwise summed anew, with what
  /// is rounding error alone set to zero.
  double value(double t) const {
    const double running = value_ + slope_ * t;
    return std::abs(running) > value_blur_ + slope_blur_ * t ? running : fresh_value(t);
  }

  bool falls_forever() const { return slope_ < -slope_blur_; }

  /// Where the segment's line, summed anew, is zero.
  double root() const {
    double value = ray_.constant, slope = 0.0;
    for (Index j = 0; j < ray_.slopes.size(); ++j) {
      if (!active_[index(j)]) continue;
      value += ray_.output[j] * ray_.preactivations[j];
      slope += ray_.output[j] * ray_.slopes[j];
    }
    return slope < 0.0 ? -value / slope : kInfinity;
  }

  void pass(Index j) {
    active_[index(j)] = !active_[index(j)];
    add(j, active_[index(j)] ? 1.0 : -1.0);
  }

 private:
  static std::size_t index(Index j) { return static_cast<std::size_t>(j); }

  void add(Index j, double sign) {
    value_ += sign * ray_.output[j] * ray_.preactivations[j];
    slope_ += sign * ray_.output[j] * ray_.slopes[j];
  }

  double fresh_value(double t) const {
    double value = ray_.constant, magnitude = std::abs(ray_.constant), roundings = kTermRoundings;
    for (Index j = 0; j < ray_.slopes.size(); ++j) {
      if (!active_[index(j)]) continue;
      const double a = ray_.preactivations[j], d = ray_.slopes[j], v = ray_.output[j];
      value += v * (a + t * d);
      magnitude += std::abs(v) * (std::abs(a) + t * std::abs(d));
      roundings += 1.0;
    }
    return std::abs(value) <= roundings * kUnitRoundoff * magnitude ? 0.0 : value;
  }

  const Ray& ray_;
  std::vector<char> active_;
  double value_ = 0.0, slope_ = 0.0;
  double value_blur_ = 0.0, slope_blur_ = 0.0;
};

bool flipped(double value, Flip flip) { return flip == Flip::strict ? value < 0.0 : value <= 0.0; }

}  // namespace

double first_crossing(const Ray& ray, Flip flip) {
  double start_value = ray.constant;
  start_value += ray.output.dot(ray.preactivations.cwiseMax(0.0));
  if (flipped(start_value, flip)) return 0.0;
  Segment segment(ray);
  double begin = 0.0;
  for (const auto& [end, neuron] : sorted_breakpoints(ray)) {
    if (flipped(segment.value(end), flip)) return std::clamp(segment.root(), begin, end);
    segment.pass(neuron);
    begin = end;
  }
  return segment.falls_forever() ? std::max(segment.root(), begin) : kInfinity;
}

Vector ray_crossings(const MatrixView& preactivations, const VectorView& slopes,
                     const VectorView& signs, const VectorView& output, double constant,
                     const VectorView& labels, Flip flip, int num_threads, Control* control) {
  constexpr Index kPointsPerBlock = 16;
  const Index n = preactivations.rows(), width = preactivations.cols();
  Vector crossings = Vector::Constant(n, kInfinity);
  const double work = 50.0 * static_cast<double>(n) * static_cast<double>(width);
  parallel_for(block_count(n, kPointsPerBlock), threads_for(work, num_threads), control,
               [&](Index index) {
                 const Block block = block_at(index, n, kPointsPerBlock);
                 Vector start(width), moved(width), signed_output(width);
                 for (Index i = block.begin; i < block.begin + block.size; ++i) {
                   start = preactivations.row(i);
                   moved = signs[i] * slopes;
                   signed_output = labels[i] * output;
                   const Ray ray{start, moved, signed_output, labels[i] * constant};
                   crossings[i] = first_crossing(ray, flip);
                 }
               });
  return crossings;
}

}  // namespace reluflow
