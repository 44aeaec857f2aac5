#include "reluflow/team.hpp"

#include <thread>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace reluflow {
namespace {

// Looks at the ticket before a thread without work goes to sleep: some hundreds of microseconds,
// more than lie between two loops of a small problem. On a busy machine a thread that goes to sleep
// gives up its share, and is woken late.
constexpr int kLooksBeforeSleep = 20000;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#endif
}

}  // namespace

bool Team::claim(Call& call, const void*& body, Index& i) {
  std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
  for (;;) {
    const Index count = count_.load(std::memory_order_acquire);
    call = call_.load(std::memory_order_acquire);
    body = body_.load(std::memory_order_acquire);
    i = static_cast<Index>(ticket % kLoop);
    if (i >= count) {
      // The fields may belong to a later loop than the ticket; only an unchanged ticket says no.
      const std::uint64_t again = ticket_.load(std::memory_order_acquire);
      if (again == ticket) return false;
      ticket = again;
      continue;
    }
    if (ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      return true;
    }
  }
}

void Team::perform(Call call, const void* body, Index i) {
  if (!skip_.load(std::memory_order_relaxed)) {
    try {
      call(body, i);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      skip_ = true;
    }
  }
  done_.fetch_add(1, std::memory_order_release);
}

bool Team::share(Index count, Call call, const void* body, Control* control) {
  if (control && control->stop()) return false;
  const std::uint64_t loop = ticket_.load(std::memory_order_relaxed) / kLoop + 1;
  ticket_.store(loop * kLoop + kClosed);
  skip_ = false;
  done_.store(0, std::memory_order_release);
  count_.store(count, std::memory_order_release);
  call_.store(call, std::memory_order_release);
  body_.store(body, std::memory_order_release);
  ticket_.store(loop * kLoop);
  wake();
  Index i;
  while (claim(call, body, i)) {
    if (control && control->stop()) skip_ = true;
    perform(call, body, i);
  }
  // Iterations that others have claimed are still under way.
  for (int looks = 0; done_.load(std::memory_order_acquire) < count; ++looks) {
    if (looks < kLooksBeforeSleep) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
  if (failure_) {
    const std::exception_ptr failure = failure_;
    failure_ = nullptr;
    std::rethrow_exception(failure);
  }
  return !skip_;
}

void Team::serve() {
  int looks = 0;
  while (!dismissed_.load(std::memory_order_acquire)) {
    const std::uint64_t seen = ticket_.load();
    Call call;
    const void* body;
    Index i;
    bool worked = false;
    while (claim(call, body, i)) {
      perform(call, body, i);
      worked = true;
    }
    if (worked || ++looks < kLooksBeforeSleep) {
      if (worked) looks = 0;
      pause();
      continue;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    ++sleeping_;
    awake_.wait(lock, [&] { return dismissed_ || ticket_.load() / kLoop != seen / kLoop; });
    --sleeping_;
    looks = 0;
  }
}

void Team::wake() {
  if (sleeping_.load() == 0) return;
  // Taking the lock orders this after a sleeper's last look at the ticket.
  {
    const std::lock_guard<std::mutex> lock(mutex_);
  }
  awake_.notify_all();
}

void Team::dismiss() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    dismissed_ = true;
  }
  awake_.notify_all();
}

}  // namespace reluflow
