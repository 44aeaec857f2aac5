#pragma once

#include "reluflow/control.hpp"
#include "reluflow/ray_crossing.hpp"
#include "reluflow/types.hpp"

namespace reluflow {

/// log of the standard normal upper tail: log(1 - Phi(t)), for t of any size.
double log_upper_tail(double t);

/// log of the standard normal probability of [begin, end]; minus infinity where it is empty.
double log_normal_mass(double begin, double end);

/// For every line i, log of the standard normal probability of the t in [lower_i, upper_i] that
/// flip N_i(t) = constant + sum_j output_j relu(preactivations_ij + t slopes_j). Exact up to
/// rounding: N_i is piecewise linear, and its breakpoints are visited in order. A value within the
/// rounding error of its own evaluation counts as 0. docs/theory.md, section 8.4.
Vector log_line_masses(const MatrixView& preactivations, const VectorView& slopes,
                       const VectorView& output, double constant, const VectorView& lower,
                       const VectorView& upper, Flip flip, int num_threads,
                       Control* control = nullptr);

}  // namespace reluflow
