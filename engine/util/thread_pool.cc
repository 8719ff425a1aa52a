#include "engine/util/thread_pool.h"

#include <sched.h>

#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dimmer {
namespace {

// A forward pass forks some fifty times within a few milliseconds: waking a sleeping thread each
// time would cost more than the work. Threads spin for about this many pauses (tens of
// microseconds) before they sleep.
constexpr int kSpins = 4000;

// ThreadPool::state_
constexpr uint64_t kJoined = 0xffff;       // workers inside
constexpr uint64_t kOpen = 0x10000;        // more may join
constexpr uint64_t kGeneration = 0x20000;  // one ParallelFor
uint64_t GenerationOf(uint64_t state) { return state / kGeneration; }

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// A thread is often woken on the very core whose work it is to share, and the kernel balances that
// out only milliseconds later: longer than a small forward pass. Moves the calling thread to
// another core that it may use.
void LeaveCpu(int cpu) {
  cpu_set_t allowed;
  if (cpu < 0 || sched_getcpu() != cpu || sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
    return;
  }
  cpu_set_t others = allowed;
  CPU_CLR(cpu, &others);
  if (CPU_COUNT(&others) == 0) return;
  sched_setaffinity(0, sizeof(others), &others);
  sched_setaffinity(0, sizeof(allowed), &allowed);
}

}  // namespace

ThreadPool::ThreadPool(size_t threads) {
  try {
    for (size_t i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
  } catch (...) {  // no more threads: a std::thread that is not joined would end the process
    Stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { Stop(); }

void ThreadPool::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    state_.fetch_add(kGeneration, std::memory_order_release);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(size_t count, absl::FunctionRef<void(size_t, size_t)> task) {
  if (count == 0) return;
  if (workers_.empty() || count == 1) {
    for (size_t i = 0; i < count; ++i) task(i, 0);
    return;
  }
  count_ = count;
  task_ = &task;
  next_.store(0, std::memory_order_relaxed);
  caller_cpu_.store(sched_getcpu(), std::memory_order_relaxed);
  {
    std::lock_guard lock(mutex_);
    state_.fetch_add(kGeneration | kOpen, std::memory_order_release);
  }
  wake_.notify_all();
  RunTasks(0);
  // No index is left. `task` lives on this stack frame: wait for the workers that took part, but
  // not for those that have yet to wake up.
  state_.fetch_sub(kOpen, std::memory_order_relaxed);
  for (int spins = 0; (state_.load(std::memory_order_acquire) & kJoined) != 0; ++spins) {
    if (spins < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
  if (failed_.exchange(false, std::memory_order_relaxed)) {
    std::rethrow_exception(std::exchange(failure_, nullptr));
  }
}

void ThreadPool::RunTasks(size_t thread) noexcept {
  try {
    for (size_t i = next_.fetch_add(1, std::memory_order_relaxed); i < count_;
         i = next_.fetch_add(1, std::memory_order_relaxed)) {
      (*task_)(i, thread);
    }
  } catch (...) {
    next_.store(count_, std::memory_order_relaxed);
    // Read by the caller once this thread has left the loop.
    if (!failed_.exchange(true, std::memory_order_relaxed)) failure_ = std::current_exception();
  }
}

// Joins the current ParallelFor if it is another one than `seen` and still open; sets `seen`.
bool ThreadPool::Join(uint64_t& seen) {
  uint64_t state = state_.load(std::memory_order_acquire);
  while (GenerationOf(state) != seen && (state & kOpen) != 0) {
    if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) {
      seen = GenerationOf(state);
      return true;
    }
  }
  seen = GenerationOf(state);
  return false;
}

void ThreadPool::Work(size_t thread) {
  uint64_t seen = 0;
  const auto is_new = [&] { return GenerationOf(state_.load(std::memory_order_acquire)) != seen; };
  while (!stopping_) {
    for (int spins = 0; spins < kSpins && !is_new(); ++spins) Pause();
    if (!is_new()) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, is_new);
      lock.unlock();
      LeaveCpu(caller_cpu_.load(std::memory_order_relaxed));
    }
    if (!Join(seen)) continue;
    RunTasks(thread);
    state_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace dimmer
