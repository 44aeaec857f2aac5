#include "reluflow/random.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__GNUC__) && defined(__SSE2__)
#include <immintrin.h>
#endif

namespace reluflow {
namespace {

// A few 64-bit integers or doubles that one register holds. Two operations are spelled out:
// compilers do not see that the product of two low halves is a single vector instruction, and
// std::sqrt may have to set errno (Eigen's square root is not exactly rounded with AVX-512).
#if defined(__GNUC__) && defined(__AVX2__)
using Word = std::uint64_t __attribute__((vector_size(32)));
using Real = __m256d;
inline Word low_product(Word a, std::uint32_t factor) {
  return reinterpret_cast<Word>(_mm256_mul_epu32(
      reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(static_cast<long long>(factor))));
}
inline Real square_root(Real a) { return _mm256_sqrt_pd(a); }
#elif defined(__GNUC__) && defined(__SSE2__)
using Word = std::uint64_t __attribute__((vector_size(16)));
using Real = __m128d;
inline Word low_product(Word a, std::uint32_t factor) {
  return reinterpret_cast<Word>(
      _mm_mul_epu32(reinterpret_cast<__m128i>(a), _mm_set1_epi64x(static_cast<long long>(factor))));
}
inline Real square_root(Real a) { return _mm_sqrt_pd(a); }
#else
using Word = std::uint64_t;
using Real = double;
inline Word low_product(Word a, std::uint32_t factor) { return (a & 0xffffffffu) * factor; }
inline Real square_root(Real a) { return std::sqrt(a); }
#endif

constexpr Index kWordLanes = sizeof(Word) / sizeof(std::uint64_t);
static_assert(kRandomLanes % kWordLanes == 0);

template <class Register, class Element>
inline Register load(const Element* from) {
  Register value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class Register, class Element>
inline void store(Register value, Element* to) {
  std::memcpy(to, &value, sizeof value);
}

using Bits = std::uint64_t[kRandomLanes];
using Reals = double[kRandomLanes];

constexpr std::uint64_t kLowHalf = 0xffffffffu;
constexpr std::uint64_t kSignBit = std::uint64_t{1} << 63;
constexpr std::uint64_t kMantissa = (std::uint64_t{1} << 52) - 1;
constexpr std::uint64_t kOne = 0x3ff0000000000000u;

inline std::uint64_t bits_of(double value) {
  std::uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline double real_of(std::uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// 1 plus a fraction in [0, 1), exact to 2^-52.
inline double one_plus_fraction(std::uint64_t mantissa) { return real_of(kOne | mantissa); }

/// sum_i coefficients[i] x^i by Horner's rule.
template <std::size_t n>
inline double polynomial(const double (&coefficients)[n], double x) {
  double sum = coefficients[n - 1];
  for (std::size_t i = n - 1; i-- > 0;) sum = sum * x + coefficients[i];
  return sum;
}

// log((1 + s) / (1 - s)) = 2 s + 2 s^3 (1/3 + s^2/5 + ...); for s^2 <= (3 - 2 sqrt 2)^2 the first
// term left out is below 1e-17 of the sum.
constexpr double kAtanh[] = {1. / 3,  1. / 5,  1. / 7,  1. / 9,  1. / 11,
                             1. / 13, 1. / 15, 1. / 17, 1. / 19, 1. / 21};
// sin x = x + x^3 (-1/3! + x^2/5! - ...) and cos x = 1 + x^2 (-1/2! + x^2/4! - ...); for
// |x| <= pi/4 the first terms left out are below 1e-16 and 1e-17 of the sums.
constexpr double kSine[] = {-1. / 6,         1. / 120,         -1. / 5040,          1. / 362880,
                            -1. / 39916800., 1. / 6227020800., -1. / 1307674368000.};
constexpr double kCosine[] = {
    -1. / 2,        1. / 24,         -1. / 720,          1. / 40320,
    -1. / 3628800., 1. / 479001600., -1. / 87178291200., 1. / 20922789888000.};
constexpr double kLog2 = 0.693147180559945309417;
constexpr double kHalfPi = 1.57079632679489661923;

/// log u for a normal u > 0. With u = 2^e m and sqrt(1/2) <= m < sqrt 2, log m is the series above
/// in s = (m - 1) / (m + 1); near u = 1, e = 0 and nothing cancels.
inline double log_positive(double u) {
  constexpr std::uint64_t kSqrtHalf = 0x3fe6a09e667f3bcdu;
  const std::uint64_t shifted = bits_of(u) + (kOne - kSqrtHalf);
  // An integer below 2^52 in the mantissa of 2^52, less 2^52 and the bias of the exponent.
  const double e = real_of((shifted >> 52) | 0x4330000000000000u) - (4503599627370496. + 1023.);
  const double f = real_of((shifted & kMantissa) + kSqrtHalf) - 1.0;
  const double s = f / (2.0 + f);
  const double square = s * s;
  return e * kLog2 + 2.0 * (s + s * (square * polynomial(kAtanh, square)));
}

void radii(const Bits& bits, Reals& radius) {
  for (Index i = 0; i < kRandomLanes; ++i) {
    radius[i] = -2.0 * log_positive(2.0 - one_plus_fraction(bits[i] >> 12));
  }
  for (Index i = 0; i < kRandomLanes; i += kWordLanes) {
    store(square_root(load<Real>(radius + i)), radius + i);
  }
}

/// radius times (cos, sin) of pi/2 (quadrant + t - 1/2): the two highest bits are the quadrant, the
/// next 50 the fraction t. Odd quadrants exchange sine and cosine.
void rotate(const Reals& radius, const Bits& bits, double* first, double* second) {
  for (Index i = 0; i < kRandomLanes; ++i) {
    const double x = (one_plus_fraction((bits[i] << 2) >> 12) - 1.5) * kHalfPi;
    const double square = x * x;
    const std::uint64_t sine = bits_of(x + x * (square * polynomial(kSine, square)));
    const std::uint64_t cosine = bits_of(1.0 + square * polynomial(kCosine, square));
    const std::uint64_t odd = std::uint64_t{0} - ((bits[i] >> 62) & 1);
    const std::uint64_t exchange = (sine ^ cosine) & odd;
    const std::uint64_t lower_half = bits[i] & kSignBit;
    const std::uint64_t left_half = lower_half ^ ((bits[i] << 1) & kSignBit);
    first[i] = radius[i] * real_of(cosine ^ exchange ^ left_half);
    second[i] = radius[i] * real_of(sine ^ exchange ^ lower_half);
  }
}

struct alignas(64) Chunk {
  Bits first;
  Bits second;
};

/// The two 64-bit words of each of the counters begin, begin + 1, ...
void draw_bits(const DrawStream& stream, Index begin, Chunk& chunk) {
  PhiloxLanes lanes;
  for (Index i = 0; i < kRandomLanes; ++i) {
    lanes.word[0][i] = static_cast<std::uint64_t>(begin + i) & kLowHalf;
    lanes.word[1][i] = static_cast<std::uint32_t>(stream.purpose);
    lanes.word[2][i] = stream.block & kLowHalf;
    lanes.word[3][i] = stream.block >> 32;
  }
  philox4x32(stream.key, lanes);
  for (Index i = 0; i < kRandomLanes; ++i) {
    chunk.first[i] = (lanes.word[0][i] << 32) | lanes.word[1][i];
    chunk.second[i] = (lanes.word[2][i] << 32) | lanes.word[3][i];
  }
}

/// Cuts `count` draws into chunks; `draw(bits, first, second)` writes kRandomLanes values to each.
template <class Draw>
void fill(const DrawStream& stream, double* out, Index count, const Draw& draw) {
  const Index half = (count + 1) / 2;
  Chunk chunk;
  alignas(64) Reals first, second;
  for (Index begin = 0; begin < half; begin += kRandomLanes) {
    draw_bits(stream, begin, chunk);
    if (begin + kRandomLanes <= count - half) {
      draw(chunk, out + begin, out + half + begin);
    } else {
      draw(chunk, first, second);
      std::copy_n(first, std::min(kRandomLanes, half - begin), out + begin);
      std::copy_n(second, std::min(kRandomLanes, count - half - begin), out + half + begin);
    }
  }
}

}  // namespace

void philox4x32(std::uint64_t key, PhiloxLanes& lanes) {
  for (Index i = 0; i < kRandomLanes; i += kWordLanes) {
    // High halves are left dirty between rounds: products read low halves only.
    Word a = load<Word>(lanes.word[0] + i), b = load<Word>(lanes.word[1] + i);
    Word c = load<Word>(lanes.word[2] + i), d = load<Word>(lanes.word[3] + i);
    std::uint32_t low_key = static_cast<std::uint32_t>(key);
    std::uint32_t high_key = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      const Word p = low_product(a, 0xD2511F53u), q = low_product(c, 0xCD9E8D57u);
      a = (q >> 32) ^ b ^ std::uint64_t{low_key};
      b = q;
      c = (p >> 32) ^ d ^ std::uint64_t{high_key};
      d = p;
      low_key += 0x9E3779B9u;
      high_key += 0xBB67AE85u;
    }
    store(a & kLowHalf, lanes.word[0] + i);
    store(b & kLowHalf, lanes.word[1] + i);
    store(c & kLowHalf, lanes.word[2] + i);
    store(d & kLowHalf, lanes.word[3] + i);
  }
}

void fill_uniforms(const DrawStream& stream, double* out, Index count) {
  fill(stream, out, count, [](const Chunk& chunk, double* first, double* second) {
    for (Index i = 0; i < kRandomLanes; ++i) {
      first[i] = one_plus_fraction(chunk.first[i] >> 12) - 1.0;
      second[i] = one_plus_fraction(chunk.second[i] >> 12) - 1.0;
    }
  });
}

void fill_normals(const DrawStream& stream, double* out, Index count) {
  fill(stream, out, count, [](const Chunk& chunk, double* first, double* second) {
    alignas(64) Reals radius;
    radii(chunk.first, radius);
    rotate(radius, chunk.second, first, second);
  });
}

}  // namespace reluflow
