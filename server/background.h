// A thread for the little work that must not run on gRPC's few threads: one for tokenizing on
// request, one for writing the state file.
//
// Thread safety: Run() may be called from any thread.
#ifndef DIMMER_SERVER_BACKGROUND_H_
#define DIMMER_SERVER_BACKGROUND_H_

#include <absl/status/status.h>

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace dimmer {

class Background {
 public:
  explicit Background(size_t max_waiting);
  // Runs what waits, then returns.
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // Runs `task` later, in order. Where it throws, `failed` gets an Internal error instead; a task
  // must not throw once it has answered. ResourceExhausted if `max_waiting` tasks wait already:
  // then neither is called.
  absl::Status Run(std::function<void()> task, std::function<void(const absl::Status&)> failed);

 private:
  struct Entry {
    std::function<void()> task;
    std::function<void(const absl::Status&)> failed;
  };
  void Work();
  static void RunNow(const Entry& entry);

  const size_t max_waiting_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Entry> tasks_;
  bool stopping_ = false;
  std::thread thread_;  // last: starts when the rest is there
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_BACKGROUND_H_
