#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <iterator>
#include <list>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/layers/workspace.h"
#include "engine/scheduler/batch.h"
#include "engine/scheduler/call_queue.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

using Clock = std::chrono::steady_clock;

absl::Status WhyDead(const Call& call) {
  return call.cancelled.load(std::memory_order_relaxed) ? RequestCancelled() : RequestTimedOut();
}

absl::Status ShuttingDown() { return absl::UnavailableError("GRPC server is shutting down"); }

// Whether a call can go on for ever.
bool Generates(const Call& call) {
  return std::any_of(call.sequences.begin(), call.sequences.end(),
                     [](const Sequence& sequence) { return sequence.task == Task::kGeneration; });
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
      closed_ = stopping_ = ending_ = true;
      for (const auto& job : queue_.TakeAll()) {
        Refuse(job, ShuttingDown(), unanswered_);
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
    DIMMER_RETURN_IF_ERROR(CheckPages(*call));
    const auto job = std::make_shared<Job>(Job{.call = call, .open = call->sequences.size()});
    for (Sequence& sequence : call->sequences) {
      sequence.cancelled = &call->cancelled;
      sequence.deadline = call->deadline;
    }
    {
      std::lock_guard lock(mutex_);
      if (closed_) return ShuttingDown();
      call->enqueued = Clock::now();
      DIMMER_RETURN_IF_ERROR(queue_.Push(job));
      ++unanswered_calls_;
      loads_[call->model->name].queued += job->waiting();
      // Cancelled before it was known here: Cancel() did not find it.
      if (call->cancelled.load(std::memory_order_relaxed)) Bury(job);
      if (call->deadline < clerk_wakes_) chores_.notify_all();
      NotifyWorker();
    }
    return absl::OkStatus();
  }

  void Cancel(const std::shared_ptr<Call>& call) {
    call->cancelled.store(true, std::memory_order_relaxed);
    std::lock_guard lock(mutex_);
    if (const std::shared_ptr<Job> job = queue_.Find(call.get())) Bury(job);
    WakePaused();  // it may sit out its steps
  }

  void Wake() {
    std::lock_guard lock(mutex_);
    WakePaused();
  }

  bool Drain(Clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    closed_ = true;
    const auto idle = [&] { return unanswered_calls_ == 0; };
    if (deadline == Clock::time_point::max()) {
      idle_.wait(lock, idle);
      return true;
    }
    // Generations can go on for ever. Those that are left shortly before the deadline end, so that
    // their callers hear of it.
    const Clock::duration left = std::max(deadline - Clock::now(), Clock::duration::zero());
    const Clock::duration notice = std::min<Clock::duration>(left / 10, std::chrono::seconds(1));
    if (idle_.wait_until(lock, deadline - notice, idle)) return true;
    ending_ = true;
    for (const auto& job : queue_.TakeIf([](const Job& job) { return Generates(*job.call); })) {
      Refuse(job, ShuttingDown(), unanswered_);
    }
    chores_.notify_all();
    work_.notify_all();
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
    std::list<Batch> batches;          // one of a model at most, the one whose turn it is first
    const ServedModel* ran = nullptr;  // in the last step
    Calls finished;
    std::unique_lock lock(mutex_);
    while (true) {
      const uint64_t wakes = wakes_;
      EndAndFill(batches, ran, finished);
      if (batches.empty() && finished.empty() && stopping_) return;
      lock.unlock();
      ran = AdvanceNext(batches, pool, workspace);
      lock.lock();
      Settle(batches, finished);
      if (ran == nullptr && finished.empty()) Rest(lock, batches, wakes);
      Answer(finished, lock);
    }
  }

  // Under the lock: what must not go on leaves `batches`, and what waits joins them. A new batch
  // takes its turn among the others, so that a stream without end holds up no other model. Where a
  // worker has nothing at all to do, what waits is left to it.
  void EndAndFill(std::list<Batch>& batches, const ServedModel* ran, Calls& finished) {
    const Clock::time_point now = Clock::now();
    for (Batch& batch : batches) EndStopped(batch, now, options_.reader_timeout, ending_);
    Settle(batches, finished);
    CallQueue::Jobs dead;
    if (batches.empty() || free_workers_ == 0) {
      for (Batch& batch : batches) CountMoved(batch, queue_.Join(batch, now, dead));
      Batch opened = queue_.Open(batches, now, dead);
      if (!opened.empty()) {
        CountMoved(opened, opened.items.size());
        // Whose turn was the last one waits longest.
        const bool behind = !batches.empty() && batches.back().model.get() == ran;
        batches.insert(behind ? std::prev(batches.end()) : batches.end(), std::move(opened));
      }
    }
    for (const std::shared_ptr<Job>& job : dead) Refuse(job, WhyDead(*job->call), finished);
    // More than this worker can take, or pages that it has released.
    if (resting_workers_ > 0 && queue_.CanServe({})) NotifyWorker();
  }

  void CountMoved(const Batch& batch, size_t moved) {
    if (moved == 0) return;
    Load& load = loads_[batch.model->name];
    load.queued -= moved;
    load.running += moved;
  }

  // Without the lock: one step of the first batch that can run; then the others are ahead of it.
  // Null if none can.
  const ServedModel* AdvanceNext(std::list<Batch>& batches, ThreadPool& pool,
                                 Workspace& workspace) {
    const Clock::time_point now = Clock::now();
    const auto next = std::find_if(batches.begin(), batches.end(),
                                   [&](Batch& batch) { return MarkRunnable(batch, now); });
    if (next == batches.end()) return nullptr;
    Advance(*next, pool, workspace, observer_);
    batches.splice(batches.end(), batches, next);
    return next->model.get();
  }

  // Under the lock: waits for work. Everybody in `batches` sits out until Wake(), which `wakes`
  // counts, or the first of them has to end.
  void Rest(std::unique_lock<std::mutex>& lock, const std::list<Batch>& batches, uint64_t wakes) {
    Clock::time_point deadline = Clock::time_point::max();
    for (const Batch& batch : batches) {
      deadline = std::min(deadline, EarliestEnd(batch, options_.reader_timeout));
    }
    const bool free = batches.empty();
    const auto wanted = [&] {
      if (stopping_) return true;
      if (free) return queue_.CanServe(batches);
      return ending_ || wakes_ != wakes || (free_workers_ == 0 && queue_.CanServe(batches));
    };
    ++resting_workers_;
    if (free) ++free_workers_;
    if (deadline == Clock::time_point::max()) {
      work_.wait(lock, wanted);
    } else {
      work_.wait_until(lock, deadline, wanted);
    }
    if (free) --free_workers_;
    --resting_workers_;
  }

  // Under the lock: something waits that a worker at rest may be able to take. One that rests with
  // sequences of its own may not.
  void NotifyWorker() {
    if (resting_workers_ > free_workers_) {
      work_.notify_all();
    } else {
      work_.notify_one();
    }
  }

  // Under the lock: workers that rest with sequences look at them again.
  void WakePaused() {
    ++wakes_;
    if (resting_workers_ > free_workers_) work_.notify_all();
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

  // Under the lock: finished sequences leave their batches, and their pages are free.
  void Settle(std::list<Batch>& batches, Calls& finished) {
    for (Batch& batch : batches) {
      std::erase_if(batch.items, [&](const Batch::Item& item) {
        if (!item.sequence->finished) return false;
        item.sequence->kv = KvPages();
        batch.tokens -= item.tokens;
        --loads_[batch.model->name].running;
        Close(*item.job, 1, finished);
        return true;
      });
    }
    batches.remove_if([](const Batch& batch) { return batch.empty(); });
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
  std::condition_variable work_;    // workers: something waits, wakes_, ending_ or stopping_
  std::condition_variable chores_;  // the clerk: an earlier deadline, unanswered_, clerk_stopping_
  std::condition_variable idle_;    // Drain: unanswered_calls_ is 0
  CallQueue queue_;
  std::map<std::string, Load> loads_;  // by model; as many entries as models were ever called
  Calls unanswered_;                   // finished, for the clerk
  uint64_t unanswered_calls_ = 0;      // admitted, and `done` has not returned
  // When the clerk looks again, unless it is woken for an earlier deadline. Often that of a call
  // long done: cheaper than to wake it for every call.
  Clock::time_point clerk_wakes_ = Clock::time_point::max();
  uint64_t wakes_ = 0;            // Wake() and Cancel() so far
  uint32_t resting_workers_ = 0;  // in Rest()
  uint32_t free_workers_ = 0;     // of them, without any sequence
  bool closed_ = false;           // accepts nothing
  bool ending_ = false;           // generations end
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

void Scheduler::Wake() { impl_->Wake(); }

bool Scheduler::Drain(std::chrono::steady_clock::time_point deadline) {
  return impl_->Drain(deadline);
}

Scheduler::Load Scheduler::load(const std::string& model) const { return impl_->load(model); }

Scheduler::Load Scheduler::load() const { return impl_->load(); }

}  // namespace dimmer
