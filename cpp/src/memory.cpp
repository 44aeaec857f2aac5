#include "reluflow/memory.hpp"

#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace reluflow {

Vector large_vector(Index size) {
  Vector numbers(size);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t kHugePage = std::uintptr_t{1} << 21;
  const auto begin = reinterpret_cast<std::uintptr_t>(numbers.data());
  const auto end = begin + static_cast<std::uintptr_t>(size) * sizeof(double);
  const std::uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const std::uintptr_t last = end / kHugePage * kHugePage;
  // A wish: where the system has no huge pages, ordinary ones do.
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
  return numbers;
}

void make_room(Vector& numbers, Index size) {
  if (numbers.size() < size) numbers = large_vector(size);
}

}  // namespace reluflow
