#pragma once

#include <algorithm>
#include <atomic>
#include <exception>

#include "reluflow/control.hpp"
#include "reluflow/types.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace reluflow {

inline int available_threads() {
#ifdef _OPENMP
  return omp_get_num_procs();
#else
  return 1;
#endif
}

/// Work below this many floating-point operations runs on the calling thread alone: waking a team
/// costs more, and on a busy machine very much more.
inline constexpr double kSerialWork = 4e6;

inline int threads_for(double work, int num_threads) {
  return work < kSerialWork ? 1 : std::max(1, num_threads);
}

/// Whether this is, of the threads of a running `parallel_for`, the one that called it.
inline bool on_calling_thread() {
#ifdef _OPENMP
  return omp_get_thread_num() == 0;
#else
  return true;
#endif
}

struct Block {
  Index begin;
  Index size;
};

/// Block `index` of [0, total) cut into pieces of `size`; boundaries depend on nothing else.
inline Block block_at(Index index, Index total, Index size) {
  const Index begin = index * size;
  return {begin, std::min(size, total - begin)};
}

inline Index block_count(Index total, Index size) { return (total + size - 1) / size; }

/// Runs body(i) for i in [0, count), in any order, on up to `num_threads` threads. Bodies must
/// write to places of their own. Returns false, with some bodies not run, when `control` asks to
/// stop.
template <class Body>
bool parallel_for(Index count, int num_threads, Control* control, const Body& body) {
  std::atomic<bool> stopped{false};
  std::exception_ptr failure;
  [[maybe_unused]] const auto guarded = [&](Index i) {
    try {
      body(i);
    } catch (...) {
      if (!stopped.exchange(true)) failure = std::current_exception();
    }
  };
#ifdef _OPENMP
  if (num_threads > 1 && count > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(num_threads)
    for (Index i = 0; i < count; ++i) {
      if (control && omp_get_thread_num() == 0 && control->stop()) stopped = true;
      if (!stopped) guarded(i);
    }
    if (failure) std::rethrow_exception(failure);
    return !stopped;
  }
#else
  (void)num_threads;
#endif
  for (Index i = 0; i < count; ++i) {
    if (control && control->stop()) return false;
    body(i);
  }
  return true;
}

}  // namespace reluflow
