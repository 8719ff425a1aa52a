#include "engine/front_pool.h"

#include <utility>

#include "engine/util/status.h"

namespace dimmer {

FrontPool::FrontPool(uint32_t threads, size_t max_weight) : max_weight_(max_weight) {
  try {
    for (uint32_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
  } catch (...) {  // no more threads: those that started are joined
    Stop();
    throw;
  }
}

FrontPool::~FrontPool() { Stop(); }

void FrontPool::Stop() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    closing_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status FrontPool::Add(size_t weight, Task task) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return absl::UnavailableError("GRPC server is shutting down");
    if (weight > max_weight_) {
      return absl::InvalidArgumentError(
          fmt::format("the call has {} sequences, the queue takes {} in all; send smaller calls",
                      weight, max_weight_));
    }
    if (weight_ + weight > max_weight_) {
      return absl::ResourceExhaustedError(
          fmt::format("Exceeds maximum queue size: {} sequences wait to be tokenized and the call "
                      "has {}, the queue takes {}",
                      weight_, weight, max_weight_));
    }
    weight_ += weight;
    waiting_.push_back({weight, std::move(task)});
  }
  work_.notify_one();
  return absl::OkStatus();
}

void FrontPool::Post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(task));
  }
  work_.notify_one();
}

bool FrontPool::Drain(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  closed_ = true;
  const auto idle = [&] { return posted_.empty() && waiting_.empty() && busy_ == 0; };
  if (deadline == std::chrono::steady_clock::time_point::max()) {
    idle_.wait(lock, idle);
    return true;
  }
  return idle_.wait_until(lock, deadline, idle);
}

void FrontPool::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return closing_ || !posted_.empty() || !waiting_.empty(); });
    std::function<void()> run;
    if (!posted_.empty()) {
      run = std::move(posted_.front());
      posted_.pop_front();
    } else if (!waiting_.empty()) {
      run = [task = std::move(waiting_.front().task), closing = closing_] { task(closing); };
      weight_ -= waiting_.front().weight;
      waiting_.pop_front();
    } else {
      return;  // closing
    }
    ++busy_;
    lock.unlock();
    run();
    run = nullptr;  // what it holds goes before anyone is told that it is done
    lock.lock();
    --busy_;
    if (busy_ == 0 && posted_.empty() && waiting_.empty()) idle_.notify_all();
  }
}

}  // namespace dimmer
