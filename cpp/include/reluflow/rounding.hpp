#pragma once

#include <limits>

#include "reluflow/types.hpp"

namespace reluflow {

/// Half the distance from 1 to the next double.
inline constexpr double kUnitRoundoff = std::numeric_limits<double>::epsilon() / 2;

/// A sum of `terms` rounded products, in any order, differs from the exact sum by at most
/// gamma(terms) times the sum of the absolute values (Higham 2002, section 3.1).
inline double gamma(Index terms) {
  const double nu = static_cast<double>(terms) * kUnitRoundoff;
  return nu / (1.0 - nu);
}

}  // namespace reluflow
