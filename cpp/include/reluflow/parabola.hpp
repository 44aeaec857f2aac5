#pragma once

namespace reluflow {

/// The parabola k z^2 + linear z + fixed, at least w relu(z) for low <= z <= high, and its
/// derivatives in its curvature k and in w.
///
/// Of all such parabolas of curvature k it is the one whose distances from 0 on the left and from
/// w z on the right balance: it touches both lines, or passes through the end of a line that is too
/// short to be touched. Curvature 0 is the chord. docs/theory.md, section 7.6.
struct Parabola {
  double linear, fixed;
  double linear_k, linear_w;
  double fixed_k, fixed_w, fixed_kk, fixed_kw, fixed_ww;
  double linear_kk, linear_kw, linear_ww;
};

/// Infinite ends are allowed; `curvature` and `weight` are above 0.
Parabola parabola_above(double curvature, double weight, double low, double high);

/// The smallest number for which k z^2 + linear z + it is at least w relu(z) on [low, high], for
/// any `linear`, up to a few roundings of `magnitude`.
double least_fixed(double curvature, double weight, double linear, double low, double high,
                   double& magnitude);

/// The curvature whose parabola touches w relu at z, inside of (low, high);
/// infinite at the kink.
double touching_curvature(double weight, double z, double low, double high);

}  // namespace reluflow
