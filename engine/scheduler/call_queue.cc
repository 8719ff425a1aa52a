#include "engine/scheduler/call_queue.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "engine/layers/kv_cache.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

// Pages for all that the sequence may come to be: what runs never lacks one.
bool HasPages(const ServedModel& model, const Sequence& sequence) {
  return model.kv == nullptr || KvPool::PagesFor(KvTokens(sequence)) <= model.kv->free_pages();
}

// False: too few are free.
bool ReservePages(const ServedModel& model, Sequence& sequence) {
  if (model.kv == nullptr) return true;
  std::optional<KvPages> pages = model.kv->Reserve(KvTokens(sequence));
  if (!pages) return false;
  sequence.kv = *std::move(pages);
  return true;
}

const Sequence& Front(const std::shared_ptr<Job>& job) { return job->call->sequences[job->next]; }

bool IsDead(const Job& job, CallQueue::TimePoint now) {
  return job.call->cancelled.load(std::memory_order_relaxed) || job.call->deadline <= now;
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
  job->number = ++pushed_;
  job->position = jobs_.insert(jobs_.end(), job);
  Line& line = lines_[job->call->model.get()];
  job->line_position = line.jobs.insert(line.jobs.end(), job);
  sequences_ += count;
  if (job->call->deadline != TimePoint::max()) deadlines_.emplace(job->call->deadline, job.get());
  return absl::OkStatus();
}

bool CallQueue::Trim(const ServedModel* model, TimePoint now, Jobs& dead) {
  for (auto line = lines_.find(model); line != lines_.end(); line = lines_.find(model)) {
    const std::shared_ptr<Job> job = line->second.jobs.front();
    if (!IsDead(*job, now)) return true;
    dead.push_back(job);
    Remove(job);
  }
  return false;
}

size_t CallQueue::Join(Batch& batch, TimePoint now, Jobs& dead) {
  const ServedModel& model = *batch.model;
  size_t moved = 0;
  while (Trim(&model, now, dead)) {
    const std::shared_ptr<Job> job = lines_.at(&model).jobs.front();
    Sequence& next = job->call->sequences[job->next];
    if (!Fits(batch, model, next) || !ReservePages(model, next)) break;
    TakeNext(job);
    const size_t tokens = BatchTokens(model, next);
    batch.tokens += tokens;
    batch.items.push_back({.job = job, .sequence = &next, .tokens = tokens, .started = now});
    ++moved;
  }
  return moved;
}

Batch CallQueue::Open(const std::list<Batch>& held, TimePoint now, Jobs& dead) {
  const auto is_held = [&](const ServedModel* model) {
    return std::any_of(held.begin(), held.end(),
                       [&](const Batch& batch) { return batch.model.get() == model; });
  };
  std::set<const ServedModel*> passed;
  while (true) {
    const Lines::value_type* oldest = nullptr;
    for (const auto& line : lines_) {
      if (passed.contains(line.first) || is_held(line.first)) continue;
      if (oldest == nullptr ||
          line.second.jobs.front()->number < oldest->second.jobs.front()->number) {
        oldest = &line;
      }
    }
    if (oldest == nullptr) return {};
    const std::shared_ptr<Job> job = oldest->second.jobs.front();
    if (IsDead(*job, now)) {
      dead.push_back(job);
      Remove(job);
      continue;
    }
    Batch batch{.model = job->call->model, .items = {}};
    if (Join(batch, now, dead) > 0) return batch;
    passed.insert(batch.model.get());
  }
}

bool CallQueue::CanServe(const std::list<Batch>& held) const {
  return std::any_of(lines_.begin(), lines_.end(), [&](const auto& line) {
    const std::shared_ptr<Job>& job = line.second.jobs.front();
    const Sequence& next = Front(job);
    const auto own = std::find_if(held.begin(), held.end(), [&](const Batch& batch) {
      return batch.model.get() == line.first;
    });
    if (own != held.end() && !Fits(*own, *line.first, next)) return false;
    return HasPages(*line.first, next);
  });
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
  const auto line = lines_.find(job->call->model.get());
  line->second.jobs.erase(job->line_position);
  if (line->second.jobs.empty()) lines_.erase(line);
}

std::shared_ptr<Job> CallQueue::Find(const Call* call) const {
  const auto found = std::find_if(jobs_.begin(), jobs_.end(),
                                  [&](const auto& job) { return job->call.get() == call; });
  return found == jobs_.end() ? nullptr : *found;
}

CallQueue::Jobs CallQueue::TakeIf(const std::function<bool(const Job&)>& which) {
  Jobs jobs;
  std::copy_if(jobs_.begin(), jobs_.end(), std::back_inserter(jobs),
               [&](const std::shared_ptr<Job>& job) { return which(*job); });
  for (const std::shared_ptr<Job>& job : jobs) Remove(job);
  return jobs;
}

CallQueue::Jobs CallQueue::TakeAll() {
  return TakeIf([](const Job&) { return true; });
}

CallQueue::Jobs CallQueue::TakeLate(TimePoint now) {
  Jobs jobs;
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
