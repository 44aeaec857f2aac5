#pragma once

#include "reluflow/control.hpp"
#include "reluflow/types.hpp"

namespace reluflow {

/// When a point of positive output counts as flipped: at N <= 0, or only at N < 0.
enum class Flip { nonstrict, strict };

/// A network along a half-line: N(t) = constant + sum_j output_j relu(preactivations_j +
/// t slopes_j), t >= 0.
struct Ray {
  const Vector& preactivations;
  const Vector& slopes;
  const Vector& output;
  double constant;
};

/// The smallest t >= 0 with N(t) <= 0 (nonstrict), or the infimum of the t with N(t) < 0 (strict);
/// infinity where there is none. Exact: N is piecewise linear, and its breakpoints are visited in
/// order. Behind the start, a value within the rounding error of its own evaluation counts as 0.
double first_crossing(const Ray& ray, Flip flip);

/// First crossings of many points along one direction, each followed with its own sign: point i
/// has the pre-activations of row i, moves with slopes signs_i slopes, and flips when
/// labels_i N does.
Vector ray_crossings(const MatrixView& preactivations, const VectorView& slopes,
                     const VectorView& signs, const VectorView& output, double constant,
                     const VectorView& labels, Flip flip, int num_threads,
                     Control* control = nullptr);

}  // namespace reluflow
