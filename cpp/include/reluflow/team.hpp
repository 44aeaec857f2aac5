#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>

#include "reluflow/control.hpp"
#include "reluflow/types.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace reluflow {

/// Threads that stay together over many short loops.
///
/// One OpenMP region lasts as long as the work; inside it the calling thread hands out loops and
/// the others serve it. A loop ends when its last iteration ends, not when every thread has noticed
/// it: on a busy machine a thread that the system keeps waiting holds nobody up.
class Team {
 public:
  Team() = default;
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  /// Calls work(team) on this thread while up to num_threads - 1 others serve its loops.
  template <class Work>
  static void run(int num_threads, const Work& work);

  /// Calls body(i) for i in [0, count), in any order, each once. Loops of less than
  /// `kSerialWork` operations stay on this thread. Bodies must write to places of their own.
  /// Returns false, with some iterations left out, when `control` asks to stop.
  template <class Body>
  bool for_each(Index count, double work, Control* control, const Body& body);

  int size() const { return size_; }

  /// Which of the team's threads this is, of [0, size()).
  int seat() const {
#ifdef _OPENMP
    if (size_ > 1) return omp_get_thread_num();
#endif
    return 0;
  }

  /// Below this many floating-point operations, sharing a loop costs more than it saves.
  static constexpr double kSerialWork = 2e6;

 private:
  using Call = void (*)(const void* body, Index i);

  // A ticket names the current loop (upper half) and its next unclaimed iteration (lower half). A
  // claim succeeds only if the ticket has not changed since the fields of the loop were read, and
  // the fields change only while the ticket is closed, that is, beyond any iteration.
  static constexpr std::uint64_t kLoop = std::uint64_t{1} << 32;
  static constexpr std::uint64_t kClosed = kLoop - 1;

  bool claim(Call& call, const void*& body, Index& i);
  bool share(Index count, Call call, const void* body, Control* control);
  void perform(Call call, const void* body, Index i);
  void serve();
  void dismiss();
  void wake();

  std::atomic<std::uint64_t> ticket_{0};
  std::atomic<Index> count_{0};
  std::atomic<Call> call_{nullptr};
  std::atomic<const void*> body_{nullptr};
  std::atomic<Index> done_{0};
  std::atomic<bool> skip_{false};
  std::atomic<bool> dismissed_{false};
  std::atomic<int> sleeping_{0};
  std::mutex mutex_;
  std::condition_variable awake_;
  std::exception_ptr failure_;
  int size_ = 1;
};

template <class Work>
void Team::run(int num_threads, const Work& work) {
  Team team;
  std::exception_ptr failure;
#ifdef _OPENMP
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
  {
#pragma omp master
    {
      team.size_ = num_threads;
      try {
        work(team);
      } catch (...) {
        failure = std::current_exception();
      }
      team.dismiss();
    }
    team.serve();
  }
#else
  (void)num_threads;
  work(team);
#endif
  if (failure) std::rethrow_exception(failure);
}

template <class Body>
bool Team::for_each(Index count, double work, Control* control, const Body& body) {
  if (size_ > 1 && count > 1 && work >= kSerialWork) {
    return share(
        count, [](const void* b, Index i) { (*static_cast<const Body*>(b))(i); }, &body, control);
  }
  for (Index i = 0; i < count; ++i) {
    if (control && control->stop()) return false;
    body(i);
  }
  return true;
}

}  // namespace reluflow
