// A few threads for what comes before the scheduler: tokenizing and planning. Callers' threads
// only hand work over.
//
// Thread safety: all methods may be called from any thread; the destructor must be the last.
#ifndef DIMMER_ENGINE_FRONT_POOL_H_
#define DIMMER_ENGINE_FRONT_POOL_H_

#include <absl/status/status.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace dimmer {

class FrontPool {
 public:
  // `closing`: the pool is being destroyed, do no work.
  using Task = std::function<void(bool closing)>;

  // At most `max_weight` waits. Throws std::system_error where there are no more threads.
  FrontPool(uint32_t threads, size_t max_weight);
  // Runs what still waits, with `closing`.
  ~FrontPool();
  FrontPool(const FrontPool&) = delete;
  FrontPool& operator=(const FrontPool&) = delete;

  // Takes the task, oldest first, or returns why not: ResourceExhausted "Exceeds maximum queue
  // size", InvalidArgument if it never fits, Unavailable after Drain.
  absl::Status Add(size_t weight, Task task);

  // For small things that must happen on one of these threads: ahead of the others, never refused.
  void Post(std::function<void()> task);

  // Accepts no more (but Post) and waits until nothing waits or runs. False at the deadline.
  bool Drain(std::chrono::steady_clock::time_point deadline);

 private:
  struct Entry {
    size_t weight;
    Task task;
  };
  void Work();
  void Stop();

  const size_t max_weight_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable idle_;
  std::deque<std::function<void()>> posted_;
  std::deque<Entry> waiting_;
  size_t weight_ = 0;  // of waiting_
  size_t busy_ = 0;    // threads with a task
  bool closed_ = false;
  bool closing_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_FRONT_POOL_H_
