#include "engine/scheduler/call_queue.h"

#include <algorithm>

#include "engine/util/status.h"

namespace dimmer {
namespace {

bool Fits(const Batch& batch, const BatchLimits& limits, const Sequence& sequence) {
  return batch.empty() || (batch.items.size() < limits.max_batch_size &&
                           batch.tokens + sequence.ids.size() <= limits.max_batch_tokens);
}

}  // namespace

absl::Status CallQueue::Push(const std::shared_ptr<Job>& job) {
  const size_t count = job->waiting();
  if (count > max_sequences_) {
    return absl::InvalidArgumentError(
        fmt::format("the call has {} sequences, the queue takes {} in all; send smaller calls",
                    count, max_sequences_));
  }
  if (sequences_ + count > max_sequences_) {
    return absl::ResourceExhaustedError(
        fmt::format("Exceeds maximum queue size: {} sequences wait and the call has {}, the queue "
                    "takes {}",
                    sequences_, count, max_sequences_));
  }
  job->queued = true;
  job->position = jobs_.insert(jobs_.end(), job);
  sequences_ += count;
  if (job->call->deadline != TimePoint::max()) deadlines_.emplace(job->call->deadline, job.get());
  return absl::OkStatus();
}

size_t CallQueue::Fill(Batch& batch, TimePoint now, std::vector<std::shared_ptr<Job>>& dead) {
  const bool joins_running_batch = !batch.empty();
  size_t moved = 0;
  for (auto next = jobs_.begin(); next != jobs_.end();) {
    const std::shared_ptr<Job> job = *next++;
    const std::shared_ptr<const ServedModel>& model = job->call->model;
    if (job->call->cancelled.load(std::memory_order_relaxed) || job->call->deadline <= now) {
      dead.push_back(job);
      Remove(job);
      continue;
    }
    if (!batch.empty() && batch.model != model) {
      if (joins_running_batch) return moved;
      continue;
    }
    while (job->waiting() > 0) {
      if (!Fits(batch, model->limits, job->call->sequences[job->next])) return moved;
      Sequence& sequence = TakeNext(job);
      batch.model = model;
      batch.tokens += sequence.ids.size();
      batch.items.push_back({.job = job, .sequence = &sequence, .started = now});
      ++moved;
    }
  }
  return moved;
}

Sequence& CallQueue::TakeNext(const std::shared_ptr<Job>& job) {
  if (job->waiting() == 1) {
    Remove(job);
  } else {
    --sequences_;
  }
  return job->call->sequences[job->next++];
}

void CallQueue::Remove(const std::shared_ptr<Job>& job) {
  if (!job->queued) return;
  job->queued = false;
  sequences_ -= job->waiting();
  deadlines_.erase({job->call->deadline, job.get()});
  jobs_.erase(job->position);
}

std::shared_ptr<Job> CallQueue::Find(const Call* call) const {
  const auto found = std::find_if(jobs_.begin(), jobs_.end(),
                                  [&](const auto& job) { return job->call.get() == call; });
  return found == jobs_.end() ? nullptr : *found;
}

std::vector<std::shared_ptr<Job>> CallQueue::TakeAll() {
  std::vector<std::shared_ptr<Job>> jobs(jobs_.begin(), jobs_.end());
  for (const std::shared_ptr<Job>& job : jobs) Remove(job);
  return jobs;
}

std::vector<std::shared_ptr<Job>> CallQueue::TakeLate(TimePoint now) {
  std::vector<std::shared_ptr<Job>> jobs;
  while (earliest_deadline() <= now) {
    jobs.push_back(*deadlines_.begin()->second->position);
    Remove(jobs.back());
  }
  return jobs;
}

CallQueue::TimePoint CallQueue::earliest_deadline() const {
  return deadlines_.empty() ? TimePoint::max() : deadlines_.begin()->first;
}

}  // namespace dimmer
