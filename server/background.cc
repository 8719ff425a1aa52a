#include "server/background.h"

#include <spdlog/spdlog.h>

#include <exception>
#include <utility>

#include "engine/util/status.h"

namespace dimmer {

Background::Background(size_t max_waiting)
    : max_waiting_(max_waiting), thread_([this] { Work(); }) {}

Background::~Background() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

absl::Status Background::Run(std::function<void()> task,
                             std::function<void(const absl::Status&)> failed) {
  {
    const std::lock_guard lock(mutex_);
    if (tasks_.size() >= max_waiting_) {
      return absl::ResourceExhaustedError(fmt::format(
          "Exceeds maximum queue size: {} calls wait of at most {}", tasks_.size(), max_waiting_));
    }
    tasks_.push_back({std::move(task), std::move(failed)});
  }
  wake_.notify_one();
  return absl::OkStatus();
}

void Background::RunNow(const Entry& entry) {
  try {
    entry.task();
  } catch (const std::exception& error) {
    spdlog::error("a call failed: {}", error.what());
    entry.failed(absl::InternalError(fmt::format("the call failed: {}", error.what())));
  }
}

void Background::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    {
      const Entry entry = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      RunNow(entry);
    }
    lock.lock();
  }
}

}  // namespace dimmer
