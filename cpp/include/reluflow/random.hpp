#pragma once

#include <cstdint>

#include "reluflow/types.hpp"

namespace reluflow {

/// Counters that are encrypted side by side.
inline constexpr Index kRandomLanes = 64;

/// Four 32-bit words a lane, each kept in the low half of a 64-bit integer.
struct alignas(64) PhiloxLanes {
  std::uint64_t word[4][kRandomLanes];
};

/// Philox4x32 with ten rounds (Salmon, Moraes, Dror & Shaw 2011): replaces every counter by its 128
/// random bits under `key`. Any draw is reached directly by its number, so that neither the order
/// nor the number of threads matters.
void philox4x32(std::uint64_t key, PhiloxLanes& lanes);

/// What draws are for: streams of different purpose share no counter.
enum class DrawPurpose : std::uint32_t { normals, clusters };

/// The draws of one block under one key. Draw i < count/2 (rounded up) is the first that counter i
/// gives, and draw i + count/2 the second.
struct DrawStream {
  std::uint64_t key;
  std::uint64_t block;
  DrawPurpose purpose;
};

/// Multiples of 2^-52, uniform on [0, 1).
void fill_uniforms(const DrawStream& stream, double* out, Index count);

/// Standard normals by Box & Muller (1958): sqrt(-2 log(1 - u)) times cosine and sine of
/// pi/2 (quadrant + t - 1/2), where u is the first uniform of a counter and (quadrant + t)/4 the
/// second. Only exactly rounded operations are used, so the values are bitwise the same on every
/// instruction set; they are within 1e-14, relatively, of what exact arithmetic would give.
void fill_normals(const DrawStream& stream, double* out, Index count);

}  // namespace reluflow
