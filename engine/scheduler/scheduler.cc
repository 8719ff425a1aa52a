#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/layers/workspace.h"
#include "engine/scheduler/call_queue.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

using Clock = std::chrono::steady_clock;

uint64_t Microseconds(std::chrono::nanoseconds time) {
  return std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::microseconds>(time).count());
}

absl::Status WhyDead(const Call& call) {
  return call.cancelled.load(std::memory_order_relaxed) ? RequestCancelled() : RequestTimedOut();
}

StepStats EmptyStats(const ModelInfo& info) {
  StepStats stats;
  stats.modules.resize(info.cost.moe.size());
  for (size_t i = 0; i < stats.modules.size(); ++i) {
    stats.modules[i].expert_tokens.resize(info.cost.moe[i].experts);
    stats.modules[i].experts_per_token.resize(info.cost.moe[i].experts + size_t{1});
  }
  return stats;
}

// Runs the model. An exception (out of memory, in practice) fails what was in the batch, not the
// worker.
void Step(const Batch& batch, ThreadPool& pool, Workspace& workspace, StepStats& stats) {
  absl::Status failure;
  try {
    stats = EmptyStats(batch.model->model->info());
    StepContext context{.pool = pool, .workspace = workspace, .stats = &stats};
    std::vector<Sequence*> sequences;
    sequences.reserve(batch.items.size());
    for (const Batch::Item& item : batch.items) sequences.push_back(item.sequence);
    batch.model->model->Forward(sequences, context);
    return;
  } catch (const std::exception& error) {
    failure = absl::InternalError(
        fmt::format("model {}: the forward pass failed: {}", batch.model->name, error.what()));
  } catch (...) {
    failure =
        absl::InternalError(fmt::format("model {}: the forward pass failed", batch.model->name));
  }
  for (const Batch::Item& item : batch.items) {
    if (item.sequence->finished) continue;
    item.sequence->status = failure;
    item.sequence->finished = true;
  }
}

}  // namespace

// One lock guards everything but the sequences of a running batch, which belong to its worker.
// Calls are answered by the worker that finished their last sequence, or, if that never ran, by
// the clerk: a thread that watches the deadlines of what waits. Neither holds the lock then.
class Scheduler::Impl {
 public:
  Impl(SchedulerOptions options, SchedulerObserver* observer)
      : options_(options), observer_(observer), queue_(options.max_queue_size) {
    const uint32_t workers = std::max<uint32_t>(options_.workers, 1);
    const uint32_t threads = std::max<uint32_t>(options_.threads_per_worker, 1);
    try {
      // Here and not on the workers, where nobody would catch what is thrown.
      for (uint32_t i = 0; i < workers; ++i) {
        pools_.push_back(std::make_unique<ThreadPool>(threads));
      }
      threads_.reserve(workers);
      for (const auto& pool : pools_) threads_.emplace_back([this, &pool = *pool] { Work(pool); });
      clerk_ = std::thread([this] { Clerk(); });
    } catch (...) {  // no more threads: those that started are joined
      Stop();
      throw;
    }
  }

  ~Impl() { Stop(); }

  void Stop() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
      stopping_ = true;
      for (const auto& job : queue_.TakeAll()) {
        Refuse(job, absl::UnavailableError("GRPC server is shutting down"), unanswered_);
      }
    }
    work_.notify_all();
    chores_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    {
      std::lock_guard lock(mutex_);
      clerk_stopping_ = true;
    }
    chores_.notify_all();
    if (clerk_.joinable()) clerk_.join();
  }

  absl::Status Submit(std::shared_ptr<Call> call) {
    if (call->sequences.empty()) {
      return absl::InvalidArgumentError("the call has no sequences");
    }
    const auto job = std::make_shared<Job>(Job{.call = call, .open = call->sequences.size()});
    for (Sequence& sequence : call->sequences) {
      sequence.cancelled = &call->cancelled;
      sequence.deadline = call->deadline;
    }
    {
      std::lock_guard lock(mutex_);
      if (closed_) return absl::UnavailableError("GRPC server is shutting down");
      call->enqueued = Clock::now();
      DIMMER_RETURN_IF_ERROR(queue_.Push(job));
      ++unanswered_calls_;
      loads_[call->model->name].queued += job->waiting();
      // Cancelled before it was known here: Cancel() did not find it.
      if (call->cancelled.load(std::memory_order_relaxed)) Bury(job);
      if (call->deadline < clerk_wakes_) chores_.notify_all();
    }
    work_.notify_one();
    return absl::OkStatus();
  }

  void Cancel(const std::shared_ptr<Call>& call) {
    call->cancelled.store(true, std::memory_order_relaxed);
    std::lock_guard lock(mutex_);
    if (const std::shared_ptr<Job> job = queue_.Find(call.get())) Bury(job);
  }

  bool Drain(Clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    closed_ = true;
    const auto idle = [&] { return unanswered_calls_ == 0; };
    if (deadline == Clock::time_point::max()) {
      idle_.wait(lock, idle);
      return true;
    }
    return idle_.wait_until(lock, deadline, idle);
  }

  Load load(const std::string& model) const {
    std::lock_guard lock(mutex_);
    const auto found = loads_.find(model);
    return found == loads_.end() ? Load{} : found->second;
  }

  Load load() const {
    std::lock_guard lock(mutex_);
    Load sum;
    for (const auto& [name, load] : loads_) {
      sum.queued += load.queued;
      sum.running += load.running;
    }
    return sum;
  }

 private:
  using Calls = std::vector<std::shared_ptr<Call>>;

  void Work(ThreadPool& pool) {
    Workspace workspace;
    Batch batch;
    Calls finished;
    std::unique_lock lock(mutex_);
    while (true) {
      work_.wait(lock, [&] { return stopping_ || !batch.empty() || !queue_.empty(); });
      Fill(batch, finished);
      if (!queue_.empty()) work_.notify_one();  // more than this worker can take
      if (batch.empty() && finished.empty() && stopping_) return;
      lock.unlock();
      if (!batch.empty()) Advance(batch, pool, workspace);
      lock.lock();
      Settle(batch, finished);
      Answer(finished, lock);
    }
  }

  // Answers calls of which nothing ran, and notices the deadlines that pass in the queue.
  void Clerk() {
    std::unique_lock lock(mutex_);
    Calls late;
    while (true) {
      for (const auto& job : queue_.TakeLate(Clock::now())) Refuse(job, WhyDead(*job->call), late);
      late.insert(late.end(), unanswered_.begin(), unanswered_.end());
      unanswered_.clear();
      if (!late.empty()) {
        Answer(late, lock);
        continue;
      }
      if (clerk_stopping_) return;
      clerk_wakes_ = queue_.earliest_deadline();
      if (clerk_wakes_ == Clock::time_point::max()) {
        chores_.wait(lock);
      } else {
        chores_.wait_until(lock, clerk_wakes_);
      }
    }
  }

  // Under the lock: lets sequences join `batch`.
  void Fill(Batch& batch, Calls& finished) {
    std::vector<std::shared_ptr<Job>> dead;
    const size_t moved = queue_.Fill(batch, Clock::now(), dead);
    if (moved > 0) {
      Load& load = loads_[batch.model->name];
      load.queued -= moved;
      load.running += moved;
    }
    for (const std::shared_ptr<Job>& job : dead) Refuse(job, WhyDead(*job->call), finished);
  }

  // Without the lock: one step of the batch.
  void Advance(Batch& batch, ThreadPool& pool, Workspace& workspace) {
    StepStats stats;
    const Clock::time_point start = Clock::now();
    Step(batch, pool, workspace, stats);
    const std::chrono::nanoseconds compute = Clock::now() - start;
    for (Batch::Item& item : batch.items) {
      item.compute += compute;
      Usage& usage = item.sequence->usage;
      usage.queue_us = Microseconds(item.started - item.job->call->enqueued);
      usage.compute_us = Microseconds(item.compute);
    }
    if (observer_ == nullptr) return;
    try {
      observer_->OnStep(batch.model->name, batch.model->version, stats, compute);
    } catch (...) {
      // Out of memory: one step is missing in the metrics, which must not cost the worker.
    }
  }

  // Under the lock: finished sequences leave the batch.
  void Settle(Batch& batch, Calls& finished) {
    const auto leaves = [&](const Batch::Item& item) {
      if (!item.sequence->finished) return false;
      batch.tokens -= item.sequence->ids.size();
      --loads_[batch.model->name].running;
      Close(*item.job, 1, finished);
      return true;
    };
    std::erase_if(batch.items, leaves);
    if (batch.empty()) batch.model = nullptr;
  }

  // Under the lock: a call that waits and is cancelled goes to the clerk.
  void Bury(const std::shared_ptr<Job>& job) {
    queue_.Remove(job);
    Refuse(job, WhyDead(*job->call), unanswered_);
    chores_.notify_all();
  }

  // Under the lock: fails the sequences of a job that has left the queue, those that still waited.
  void Refuse(const std::shared_ptr<Job>& job, const absl::Status& status, Calls& finished) {
    Call& call = *job->call;
    const size_t waited = job->waiting();
    const uint64_t queue_us = Microseconds(Clock::now() - call.enqueued);
    for (; job->next < call.sequences.size(); ++job->next) {
      Sequence& sequence = call.sequences[job->next];
      sequence.status = status;
      sequence.finished = true;
      sequence.usage.queue_us = queue_us;
    }
    loads_[call.model->name].queued -= waited;
    Close(*job, waited, finished);
  }

  void Close(Job& job, size_t sequences, Calls& finished) {
    job.open -= sequences;
    if (job.open == 0) finished.push_back(job.call);
  }

  // Answers and forgets `calls`, with the lock released meanwhile.
  void Answer(Calls& calls, std::unique_lock<std::mutex>& lock) {
    if (calls.empty()) return;
    lock.unlock();
    const size_t count = calls.size();
    for (const std::shared_ptr<Call>& call : calls) {
      // Moved out first: what `done` holds may hold the call.
      const std::function<void(Call&)> done = std::exchange(call->done, nullptr);
      try {
        done(*call);
      } catch (...) {
        // The call is over; those of others are not.
      }
    }
    calls.clear();
    lock.lock();
    unanswered_calls_ -= count;
    if (unanswered_calls_ == 0) idle_.notify_all();
  }

  const SchedulerOptions options_;
  SchedulerObserver* const observer_;

  mutable std::mutex mutex_;
  std::condition_variable work_;    // workers: something waits, or stopping_
  std::condition_variable chores_;  // the clerk: an earlier deadline, unanswered_, clerk_stopping_
  std::condition_variable idle_;    // Drain: unanswered_calls_ is 0
  CallQueue queue_;
  std::map<std::string, Load> loads_;  // by model; as many entries as models were ever called
  Calls unanswered_;                   // finished, for the clerk
  uint64_t unanswered_calls_ = 0;      // admitted, and `done` has not returned
  // When the clerk looks again, unless it is woken for an earlier deadline. Often that of a call
  // long done: cheaper than to wake it for every call.
  Clock::time_point clerk_wakes_ = Clock::time_point::max();
  bool closed_ = false;  // accepts nothing
  bool stopping_ = false;
  bool clerk_stopping_ = false;

  std::vector<std::unique_ptr<ThreadPool>> pools_;  // one per worker
  std::vector<std::thread> threads_;
  std::thread clerk_;
};

Scheduler::Scheduler(SchedulerOptions options, SchedulerObserver* observer)
    : impl_(std::make_unique<Impl>(options, observer)) {}

Scheduler::~Scheduler() = default;

absl::Status Scheduler::Submit(std::shared_ptr<Call> call) {
  return impl_->Submit(std::move(call));
}

void Scheduler::Cancel(const std::shared_ptr<Call>& call) { impl_->Cancel(call); }

bool Scheduler::Drain(std::chrono::steady_clock::time_point deadline) {
  return impl_->Drain(deadline);
}

Scheduler::Load Scheduler::load(const std::string& model) const { return impl_->load(model); }

Scheduler::Load Scheduler::load() const { return impl_->load(); }

}  // namespace dimmer
