#pragma once

#include "reluflow/types.hpp"

namespace reluflow {

/// A vector of undefined numbers. Where it is long the system is asked for huge pages, so that
/// walks through it wait less for the translation of addresses.
Vector large_vector(Index size);

/// Room for at least so many numbers, which are undefined where there was less: memory that is made
/// once and used again.
void make_room(Vector& numbers, Index size);

}  // namespace reluflow
