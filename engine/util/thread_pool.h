// Fork-join parallelism inside one forward pass.
//
// Thread safety: one ParallelFor at a time per pool (each scheduler worker owns its pool).
#ifndef DIMMER_ENGINE_UTIL_THREAD_POOL_H_
#define DIMMER_ENGINE_UTIL_THREAD_POOL_H_

#include <absl/functional/function_ref.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace dimmer {

class ThreadPool {
 public:
  // `threads` counts the caller, which takes part in every ParallelFor; 1 starts no thread. Throws
  // std::system_error where the system has no more threads.
  explicit ThreadPool(size_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t threads() const { return workers_.size() + 1; }

  // Calls task(index, thread) for every index in [0, count); returns when all calls have returned.
  // `thread` < threads() names the thread, for scratch memory. Indices are handed out dynamically,
  // so a task's result must not depend on which thread runs it. Where a task throws, no further
  // index is handed out, and the first exception is rethrown once the running tasks have returned.
  void ParallelFor(size_t count, absl::FunctionRef<void(size_t index, size_t thread)> task);

 private:
  void Work(size_t thread);
  bool Join(uint64_t& seen);
  void RunTasks(size_t thread) noexcept;
  void Stop();

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  // Of the current ParallelFor: its number, whether workers may still join it, how many are in it.
  std::atomic<uint64_t> state_{0};
  std::atomic<size_t> next_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<int> caller_cpu_{-1};
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;  // of the first task that threw; set by who turned failed_ to true
  size_t count_ = 0;
  const absl::FunctionRef<void(size_t, size_t)>* task_ = nullptr;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_UTIL_THREAD_POOL_H_
