#include "reluflow/patterns.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "reluflow/memory.hpp"
#include "reluflow/parallel.hpp"

namespace reluflow {
namespace {

using Eigen::internal::padd;
using Eigen::internal::pand;
using Eigen::internal::pcmp_lt;
using Eigen::internal::pload;
using Eigen::internal::ploadu;
using Eigen::internal::pmul;
using Eigen::internal::por;
using Eigen::internal::pset1;
using Eigen::internal::pstore;
using Eigen::internal::pstoreu;

// A block of rows is two strips high. So many neurons at a time make eight chains of additions,
// which hide each other's latency.
constexpr int kBlockStrips = 2;
constexpr Index kBlockRows = kBlockStrips * kStripRows;
constexpr int kBlockVectors = static_cast<int>(kBlockRows) / kLanes;
constexpr int kTogether = 8 / kBlockVectors;
// Numbers of the tables that stay in the first-level cache.
constexpr Index kTableNumbers = 3200;
constexpr Index kLineNumbers = 64 / sizeof(double);
constexpr Index kWord = sizeof(std::uint64_t);

// Examples whose bits are kept in a byte.
constexpr Index kByte = 8;
constexpr int kFewestBits = 3, kMostBits = 5;

/// The cost of a product in tables of 2^bits entries, in columns of a dense product: making an
/// entry takes about twice as long as looking it up, and that a little less than two multiply-adds.
double cost_of_tables(int bits, double leaders) {
  return 1.8 * (leaders + 2.0 * (1 << bits)) / bits;
}

/// Bytes of the examples that the neurons of a panel are active on.
template <int V>
void see_rows(const double* z, const Vector& bit_values, std::uint8_t* patterns, Index stride,
              double* lit) {
  constexpr int kRow = V * kLanes;
  const Packet zero = pset1<Packet>(0.0);
  Packet any[V];
#pragma GCC unroll 8
  for (int u = 0; u < V; ++u) any[u] = zero;
  const Index bytes = block_count(bit_values.size(), kByte);
  for (Index byte = 0; byte < bytes; ++byte) {
    const Block group = block_at(byte, bit_values.size(), kByte);
    Packet sum[V];
#pragma GCC unroll 8
    for (int u = 0; u < V; ++u) sum[u] = zero;
    for (Index i = group.begin; i < group.begin + group.size; ++i) {
      const Packet value = pset1<Packet>(bit_values[i]);
#pragma GCC unroll 8
      for (int u = 0; u < V; ++u) {
        const Packet active = pcmp_lt(zero, ploadu<Packet>(z + i * kRow + u * kLanes));
        any[u] = por(any[u], active);
        sum[u] = padd(sum[u], pand(active, value));
      }
    }
    std::array<double, kRow> numbers;
#pragma GCC unroll 8
    for (int u = 0; u < V; ++u) pstoreu(numbers.data() + u * kLanes, sum[u]);
    for (int j = 0; j < kRow; ++j) {
      patterns[j * stride + byte] = static_cast<std::uint8_t>(numbers[static_cast<std::size_t>(j)]);
    }
  }
#pragma GCC unroll 8
  for (int u = 0; u < V; ++u) pstoreu(lit + u * kLanes, any[u]);
}

/// Whether any bit is set; of the numbers of a comparison, those that are true.
bool any_bit(double number) {
  std::uint64_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  return bits != 0;
}

/// A block of rows of left, column i at strips[s] + i * kStripRows.
using BlockOfRows = std::array<const double*, kBlockStrips>;

/// Sums over all subsets of `Count` numbers, in the order of their bits.
template <int Count>
void subset_sums(const Packet* numbers, Packet* sums) {
  sums[0] = pset1<Packet>(0.0);
#pragma GCC unroll 8
  for (int b = 0; b < Count; ++b) {
#pragma GCC unroll 8
    for (int e = 0; e < 1 << b; ++e) sums[(1 << b) + e] = padd(sums[e], numbers[b]);
  }
}

/// The sums of weighted columns of a block of rows over all subsets of a group of consecutive
/// examples: those over the first ones stay in registers, and meet those over the others.
template <int Bits>
void tabulate(const BlockOfRows& strips, const Vector& weights, Index first, Index last,
              double* table) {
  constexpr int kStripVectors = kStripRows / kLanes;
  constexpr int kLow = Bits < 3 ? Bits : 3, kHigh = Bits - kLow;
#pragma GCC unroll 8
  for (int u = 0; u < kBlockVectors; ++u) {
    const double* strip = strips[static_cast<std::size_t>(u / kStripVectors)];
    Packet column[Bits], low[1 << kLow], high[1 << kHigh];
#pragma GCC unroll 8
    for (int b = 0; b < Bits; ++b) {
      // Beyond the last example weights are 0.
      const double* numbers = strip + std::min(first + b, last) * kStripRows;
      column[b] = pmul(pset1<Packet>(weights[first + b]),
                       ploadu<Packet>(numbers + u % kStripVectors * kLanes));
    }
    subset_sums<kLow>(column, low);
    subset_sums<kHigh>(column + kLow, high);
#pragma GCC unroll 8
    for (int h = 0; h < 1 << kHigh; ++h) {
#pragma GCC unroll 8
      for (int l = 0; l < 1 << kLow; ++l) {
        double* entry = table + ((h << kLow) + l) * kBlockRows;
        pstore(entry + u * kLanes, h == 0 ? low[l] : padd(low[l], high[h]));
      }
    }
  }
}

/// Adds to (or starts) the sums of some neurons what their codes say of consecutive tables.
template <int Bits>
void look_up(const double* tables, Index count, const std::uint8_t* const* codes, bool start,
             double* sums) {
  Packet sum[kTogether][kBlockVectors];
#pragma GCC unroll 8
  for (int j = 0; j < kTogether; ++j) {
#pragma GCC unroll 8
    for (int u = 0; u < kBlockVectors; ++u) {
      sum[j][u] = start ? pset1<Packet>(0.0) : pload<Packet>(sums + j * kBlockRows + u * kLanes);
    }
  }
  for (Index g = 0; g < count; ++g) {
    const double* table = tables + (g << Bits) * kBlockRows;
#pragma GCC unroll 8
    for (int j = 0; j < kTogether; ++j) {
      const double* entry = table + codes[j][g] * kBlockRows;
#pragma GCC unroll 8
      for (int u = 0; u < kBlockVectors; ++u) {
        sum[j][u] = padd(sum[j][u], pload<Packet>(entry + u * kLanes));
      }
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < kTogether; ++j) {
#pragma GCC unroll 8
    for (int u = 0; u < kBlockVectors; ++u) {
      pstore(sums + j * kBlockRows + u * kLanes, sum[j][u]);
    }
  }
}

/// Rows of numbers to columns.
template <class P>
void transpose(P* rows) {
  Eigen::internal::PacketBlock<P, kLanes> block;
#pragma GCC unroll 8
  for (int l = 0; l < kLanes; ++l) block.packet[l] = rows[l];
  Eigen::internal::ptranspose(block);
#pragma GCC unroll 8
  for (int l = 0; l < kLanes; ++l) rows[l] = block.packet[l];
}

/// From the sums of some neurons, one row a neuron, to a SIMD vector of columns of out times v.
void spread(const std::array<const double*, kLanes>& sums, Index rows, const double* output,
            double* out, Index row_size) {
  const Packet v = ploadu<Packet>(output);
  for (Index first = 0; first < rows; first += kLanes) {
    Packet block[kLanes];
#pragma GCC unroll 8
    for (int l = 0; l < kLanes; ++l) {
      block[l] = pload<Packet>(sums[static_cast<std::size_t>(l)] + first);
    }
    transpose(block);
#pragma GCC unroll 8
    for (int l = 0; l < kLanes; ++l) pstoreu(out + (first + l) * row_size, pmul(v, block[l]));
  }
}

std::size_t power_of_two_from(std::size_t least) {
  std::size_t power = 1;
  while (power < least) power *= 2;
  return power;
}

Index rounded_up(Index number, Index multiple) { return block_count(number, multiple) * multiple; }

}  // namespace

ActivationPatterns::ActivationPatterns(const Panels& panels, Index examples)
    : panels_(panels),
      weights_(Vector::Zero(examples + kMostBits)),
      bit_values_(examples),
      stride_(rounded_up(block_count(examples, kByte) + kMostBits, kWord)),
      bits_(static_cast<std::size_t>(panels.padded_width() * stride_)),
      lit_(panels.padded_width()),
      leader_(static_cast<std::size_t>(panels.padded_width())),
      slots_(power_of_two_from(2 * static_cast<std::size_t>(panels.width()))),
      codes_stride_(rounded_up(block_count(examples, kFewestBits), kByte)),
      codes_(static_cast<std::size_t>(panels.width() * codes_stride_)) {
  for (auto* neurons : {&pushed_, &active_, &leaders_}) {
    neurons->reserve(static_cast<std::size_t>(panels.width()));
  }
  groups_.reserve(static_cast<std::size_t>(codes_stride_));
}

void ActivationPatterns::set_weights(const Vector& weights) {
  weights_.head(weights.size()) = weights;
  for (Index i = 0; i < weights.size(); ++i) {
    bit_values_[i] = weights[i] != 0.0 ? static_cast<double>(1 << i % kByte) : 0.0;
  }
}

void ActivationPatterns::see(Index panel, const double* preactivations) {
  const Index first = panels_.first_column(panel);
  with_panel_vectors(panels_.vectors(panel), [&](auto vectors) {
    see_rows<vectors>(preactivations, bit_values_, bits_.data() + first * stride_, stride_,
                      lit_.data() + first);
  });
}

void ActivationPatterns::list(const double* output) {
  for (auto* neurons : {&pushed_, &active_, &leaders_}) neurons->clear();
  std::fill(slots_.begin(), slots_.end(), kNobody);
  std::fill(leader_.begin(), leader_.end(), kNobody);
  for (Index j = 0; j < panels_.width(); ++j) {
    if (any_bit(lit_[j])) active_.push_back(j);
    if (output[j] == 0.0 || is_empty(j)) continue;
    pushed_.push_back(j);
    Index& leader = slot(j);
    if (leader == kNobody) {
      leader = static_cast<Index>(leaders_.size());
      leaders_.push_back(j);
    }
    leader_[static_cast<std::size_t>(j)] = leader;
  }
  choose_group_size();
}

void ActivationPatterns::choose_group_size() {
  double least = static_cast<double>(pushed_.size());
  group_size_ = 0;
  for (int bits = kFewestBits; bits <= kMostBits; ++bits) {
    const double cost = cost_of_tables(bits, static_cast<double>(leaders_.size()));
    if (cost >= least) continue;
    least = cost;
    group_size_ = bits;
  }
}

bool ActivationPatterns::is_empty(Index neuron) const {
  const std::uint8_t* bits = pattern(neuron);
  return std::all_of(bits, bits + stride_, [](std::uint8_t b) { return b == 0; });
}

Index& ActivationPatterns::slot(Index neuron) {
  const std::uint8_t* bits = pattern(neuron);
  std::uint64_t hash = 0;
  for (Index begin = 0; begin < stride_; begin += kWord) {
    std::uint64_t word;
    std::memcpy(&word, bits + begin, sizeof word);
    // Multiplicative hashing, and linear probing below (Knuth 1998, section 6.4).
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  }
  for (std::size_t place = hash;; ++place) {
    Index& found = slots_[place & (slots_.size() - 1)];
    if (found == kNobody) return found;
    const Index leader = leaders_[static_cast<std::size_t>(found)];
    if (std::equal(bits, bits + stride_, pattern(leader))) return found;
  }
}

void ActivationPatterns::list_groups() {
  groups_.clear();
  const Index all = block_count(bit_values_.size(), group_size_);
  for (Index g = 0; g < all; ++g) {
    if ((weights_.segment(g * group_size_, group_size_).array() != 0.0).any()) groups_.push_back(g);
  }
}

void ActivationPatterns::read_codes(Index leader) {
  const std::uint8_t* bits = pattern(leaders_[static_cast<std::size_t>(leader)]);
  std::uint8_t* codes = codes_.data() + leader * codes_stride_;
  const Index all = block_count(bit_values_.size(), group_size_);
  const std::uint64_t mask = (1u << group_size_) - 1;
  // The codes of eight groups fill as many bytes as a code has bits.
  for (Index g = 0; g < all; g += kByte, bits += group_size_) {
    std::uint64_t word = 0;
    for (int b = 0; b < group_size_; ++b) word |= std::uint64_t{bits[b]} << (b * kByte);
    for (Index e = 0; e < kByte; ++e, word >>= group_size_) {
      codes[g + e] = static_cast<std::uint8_t>(word & mask);
    }
  }
  const auto kept = static_cast<Index>(groups_.size());
  if (kept == all) return;
  for (Index g = 0; g < kept; ++g) codes[g] = codes[groups_[static_cast<std::size_t>(g)]];
}

bool ActivationPatterns::multiply(const Strips& left, const double* output, double* out, Team& team,
                                  Control* control) {
  list_groups();
  const auto leaders = static_cast<Index>(leaders_.size());
  const double work = 4.0 * static_cast<double>(leaders * codes_stride_);
  team.for_each(leaders, work, nullptr, [&](Index leader) { read_codes(leader); });
  switch (group_size_) {
    case 3:
      return multiply_with<3>(left, output, out, team, control);
    case 4:
      return multiply_with<4>(left, output, out, team, control);
    default:
      return multiply_with<5>(left, output, out, team, control);
  }
}

template <int Bits>
bool ActivationPatterns::multiply_with(const Strips& left, const double* output, double* out,
                                       Team& team, Control* control) {
  constexpr Index kTable = kBlockRows << Bits;
  const auto groups = static_cast<Index>(groups_.size());
  const auto leaders = static_cast<Index>(leaders_.size());
  const Index rows = left.padded_rows(), together = rounded_up(leaders, kTogether);
  const Index chunks = std::max<Index>(1, block_count(groups * kTable, kTableNumbers));
  const Index chunk = block_count(groups, chunks);
  // Behind the sums of the leaders those of nobody: zeros.
  const Index table_room = rounded_up(chunk * kTable, kLineNumbers);
  const Index sums_room = rounded_up((together + 1) * kBlockRows, kLineNumbers);
  make_room(room_, team.size() * (table_room + sums_room) + kLineNumbers);
  // Entries that straddle two lines of the cache would take twice as long.
  const auto misplaced = reinterpret_cast<std::uintptr_t>(room_.data()) / sizeof(double);
  double* room = room_.data() + (kLineNumbers - static_cast<Index>(misplaced) % kLineNumbers);

  // An entry that is loaded and added costs as much as so many operations of a dense product.
  constexpr double kOperationsPerEntry = 3.0;
  const double work = kOperationsPerEntry * static_cast<double>(rows * groups) *
                      static_cast<double>(together + (1 << Bits));
  const Index blocks = block_count(left.count(), kBlockStrips);
  return team.for_each(blocks, work, control, [&](Index index) {
    const Block strips = block_at(index, left.count(), kBlockStrips);
    const BlockOfRows block{left.strip(strips.begin), left.strip(strips.begin + strips.size - 1)};
    double* tables = room + team.seat() * (table_room + sums_room);
    double* sums = tables + table_room;
    double* nobody = sums + together * kBlockRows;
    std::fill(nobody, nobody + kBlockRows, 0.0);
    for (Index g = 0; g < groups; g += chunk) {
      const Index count = std::min(chunk, groups - g);
      for (Index t = 0; t < count; ++t) {
        const Index group = groups_[static_cast<std::size_t>(g + t)];
        tabulate<Bits>(block, weights_, group * Bits, bit_values_.size() - 1, tables + t * kTable);
      }
      for (Index l = 0; l < leaders; l += kTogether) {
        std::array<const std::uint8_t*, kTogether> codes;
        for (Index j = 0; j < kTogether; ++j) {
          const Index leader = std::min(l + j, leaders - 1);
          codes[static_cast<std::size_t>(j)] = codes_.data() + leader * codes_stride_ + g;
        }
        look_up<Bits>(tables, count, codes.data(), g == 0, sums + l * kBlockRows);
      }
    }
    for (Index panel = 0; panel < panels_.count(); ++panel) {
      const Index row_size = panels_.vectors(panel) * kLanes;
      double* target = out + panels_.offset(panel, rows) + strips.begin * kStripRows * row_size;
      for (Index u = 0; u < row_size; u += kLanes) {
        const Index first = panels_.first_column(panel) + u;
        std::array<const double*, kLanes> from;
        for (int l = 0; l < kLanes; ++l) {
          const Index leader = leader_[static_cast<std::size_t>(first + l)];
          from[static_cast<std::size_t>(l)] =
              leader == kNobody ? nobody : sums + leader * kBlockRows;
        }
        spread(from, strips.size * kStripRows, output + first, target + u, row_size);
      }
    }
  });
}

}  // namespace reluflow
