#pragma once

#include "reluflow/types.hpp"

namespace reluflow {

/// A vector of undefined numbers. Where it is long the system is asked for huge pages, so that
/// walks through it wait less for the translation of addresses.
Vector large_vector(Index size);

}  // namespace reluflow
