#include "reluflow/line_mass.hpp"

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
constexpr double kHalfLogTwoPi = 0.91893853320467274178;
constexpr double kSqrtHalf = 0.70710678118654752440;
// From here on the continued fraction of the tail has converged after kFractions terms.
constexpr double kFarTail = 20.0;
constexpr int kFractions = 24;
// Roundings in one term v relu(a + t s), with one more for a breakpoint t = -a/s.
constexpr double kTermRoundings = 4.0;

double log_sum(double left, double right) {
  const double high = std::max(left, right), low = std::min(left, right);
  return low == -kInfinity ? high : high + std::log1p(std::exp(low - high));
}

/// One neuron along a line: v relu(a + t s).
struct Term {
  double t;  // where it is at its kink
  double v, a, s;
  bool active;
};

/// N along one line, from t = -infinity upwards, with the probability of what was flipped so far.
class LineSweep {
 public:
  LineSweep(const VectorView& slopes, const VectorView& output, double constant, Flip flip)
      : slopes_(slopes), output_(output), constant_(constant), flip_(flip) {}

  double log_mass(const double* a, double lower, double upper) {
    lower_ = lower;
    upper_ = upper;
    load(a);
    begin();
    for (Term& term : terms_) {
      advance(is_flipped(value(term.t)), term.t);
      pass(term);
    }
    finish();
    return total_;
  }

 private:
  void load(const double* a) {
    terms_.clear();
    value_ = constant_, slope_ = 0.0, value_blur_ = std::abs(constant_), slope_blur_ = 0.0;
    for (Index j = 0; j < slopes_.size(); ++j) {
      const double v = output_[j], s = slopes_[j];
      if (v == 0.0) continue;
      if (s != 0.0) {
        terms_.push_back({-a[j] / s, v, a[j], s, s < 0.0});
        value_blur_ += std::abs(v * a[j]);
        slope_blur_ += std::abs(v * s);
      } else if (a[j] > 0.0) {
        value_ += v * a[j];
        value_blur_ += std::abs(v * a[j]);
      }
    }
    still_ = value_;
    for (const Term& term : terms_) {
      if (term.active) add(term, 1.0);
    }
    const double roundings = static_cast<double>(terms_.size()) + kTermRoundings;
    value_blur_ *= roundings * kUnitRoundoff;
    slope_blur_ *= roundings * kUnitRoundoff;
    std::sort(terms_.begin(), terms_.end(),
              [](const Term& left, const Term& right) { return left.t < right.t; });
  }

  void begin() {
    total_ = start_ = segment_ = -kInfinity;
    if (std::abs(slope_) > slope_blur_) {
      inside_ = slope_ > 0.0;
    } else {
      inside_ = is_flipped(value(terms_.empty() ? 0.0 : terms_.front().t));
    }
  }

  void finish() {
    if (std::abs(slope_) > slope_blur_) advance(slope_ < 0.0, kInfinity);
    if (inside_) collect(kInfinity);
  }

  /// Goes to the end of a linear segment, where N counts as flipped or not.
  void advance(bool flipped, double end) {
    if (flipped != inside_) {
      const double crossing = std::clamp(root(), segment_, end);
      if (inside_) collect(crossing);
      start_ = crossing;
      inside_ = flipped;
    }
    segment_ = end;
  }

  void collect(double end) {
    const double from = std::max(start_, lower_), to = std::min(end, upper_);
    total_ = log_sum(total_, log_normal_mass(from, to));
  }

  void add(const Term& term, double sign) {
    value_ += sign * term.v * term.a;
    slope_ += sign * term.v * term.s;
  }

  void pass(Term& term) {
    term.active = !term.active;
    add(term, term.active ? 1.0 : -1.0);
  }

  bool is_flipped(double value) const { return flip_ == Flip::strict ? value < 0.0 : value <= 0.0; }

  /// N at t: from the running sums where those decide its sign, otherwise summed anew, with what is
  /// rounding error alone set to zero.
  double value(double t) const {
    const double running = value_ + slope_ * t;
    if (std::abs(running) > value_blur_ + slope_blur_ * std::abs(t)) return running;
    double fresh = still_, magnitude = std::abs(still_), roundings = kTermRoundings;
    for (const Term& term : terms_) {
      if (!term.active) continue;
      fresh += term.v * (term.a + t * term.s);
      magnitude += std::abs(term.v) * (std::abs(term.a) + std::abs(t * term.s));
      roundings += 1.0;
    }
    return std::abs(fresh) <= roundings * kUnitRoundoff * magnitude ? 0.0 : fresh;
  }

  /// Where the segment's line, summed anew, is zero.
  double root() const {
    double value = still_, slope = 0.0;
    for (const Term& term : terms_) {
      if (!term.active) continue;
      value += term.v * term.a;
      slope += term.v * term.s;
    }
    return slope != 0.0 ? -value / slope : segment_;
  }

  const VectorView& slopes_;
  const VectorView& output_;
  double constant_;
  Flip flip_;
  double lower_ = -kInfinity, upper_ = kInfinity;
  std::vector<Term> terms_;
  double still_ = 0.0;                          // what neurons add that the line does not move
  double value_ = 0.0, slope_ = 0.0;            // N(t) = value + slope t on this segment
  double value_blur_ = 0.0, slope_blur_ = 0.0;  // rounding of the sums
  double segment_ = 0.0, start_ = 0.0, total_ = 0.0;
  bool inside_ = false;
};

}  // namespace

double log_upper_tail(double t) {
  if (t < 0.0) return std::log1p(-0.5 * std::erfc(-t * kSqrtHalf));
  if (t < kFarTail) return std::log(0.5 * std::erfc(t * kSqrtHalf));
  // Laplace's continued fraction of Mills' ratio.
  double fraction = t;
  for (int i = kFractions; i > 0; --i) fraction = t + static_cast<double>(i) / fraction;
  return -0.5 * t * t - kHalfLogTwoPi - std::log(fraction);
}

double log_normal_mass(double begin, double end) {
  if (!(begin < end)) return -kInfinity;
  if (end <= 0.0) return log_normal_mass(-end, -begin);
  if (begin < 0.0) {
    if (begin == -kInfinity) return log_upper_tail(-end);
    if (end == kInfinity) return log_upper_tail(begin);
    return std::log(0.5 * (std::erf(end * kSqrtHalf) - std::erf(begin * kSqrtHalf)));
  }
  const double near = log_upper_tail(begin);
  if (end == kInfinity) return near;
  const double shrink = log_upper_tail(end) - near;
  return shrink < 0.0 ? near + std::log(-std::expm1(shrink)) : -kInfinity;
}

Vector log_line_masses(const MatrixView& preactivations, const VectorView& slopes,
                       const VectorView& output, double constant, const VectorView& lower,
                       const VectorView& upper, Flip flip, int num_threads, Control* control) {
  constexpr Index kLinesPerBlock = 32;
  const Index n = preactivations.rows(), width = preactivations.cols();
  Vector masses = Vector::Constant(n, -kInfinity);
  const double work = 100.0 * static_cast<double>(n) * static_cast<double>(width);
  parallel_for(
      block_count(n, kLinesPerBlock), threads_for(work, num_threads), control, [&](Index index) {
        const Block block = block_at(index, n, kLinesPerBlock);
        LineSweep sweep(slopes, output, constant, flip);
        for (Index i = block.begin; i < block.begin + block.size; ++i) {
          masses[i] = sweep.log_mass(preactivations.data() + i * width, lower[i], upper[i]);
        }
      });
  return masses;
}

}  // namespace reluflow
