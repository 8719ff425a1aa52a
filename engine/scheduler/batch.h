// The sequences that a worker advances together, and one step of them.
//
// Thread safety: none. A batch belongs to its worker, and so do the sequences in it; joining and
// leaving happen under the scheduler's lock, a step without it.
#ifndef DIMMER_ENGINE_SCHEDULER_BATCH_H_
#define DIMMER_ENGINE_SCHEDULER_BATCH_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "engine/scheduler/scheduler.h"

namespace dimmer {

// An admitted call on its way through the scheduler. Its sequences [0, next) have left the queue;
// `open` of all are not finished.
struct Job {
  std::shared_ptr<Call> call;
  size_t next = 0;
  size_t open = 0;

  // The queue's own.
  bool queued = false;
  uint64_t number = 0;  // in order of arrival
  std::list<std::shared_ptr<Job>>::iterator position;
  std::list<std::shared_ptr<Job>>::iterator line_position;

  size_t waiting() const { return call->sequences.size() - next; }
};

struct Batch {
  struct Item {
    std::shared_ptr<Job> job;
    Sequence* sequence = nullptr;
    size_t tokens = 0;  // of the batch's
    std::chrono::steady_clock::time_point started;
    std::chrono::nanoseconds compute{0};
    bool runs = true;  // in this step
  };
  std::shared_ptr<const ServedModel> model;  // null while empty
  std::vector<Item> items;
  uint64_t tokens = 0;

  bool empty() const { return items.empty(); }
};

// What `sequence` counts in BatchLimits::max_batch_tokens: all its tokens, or none where the model
// keeps keys and values and portions out its steps itself.
size_t BatchTokens(const ServedModel& model, const Sequence& sequence);
bool Fits(const Batch& batch, const ServedModel& model, const Sequence& sequence);

// Tokens that the sequence can come to have: what its pages are reserved for.
size_t KvTokens(const Sequence& sequence);

// InvalidArgument with both numbers: a sequence needs more pages than the model's KvPool has in
// all.
absl::Status CheckPages(const Call& call);

// Marks the generations that sit this step out because their readers are behind. False if that is
// all of them.
bool MarkRunnable(Batch& batch);

// Finishes generations that were cancelled, are late, or (`ending`) must not go on: also those that
// sit out, which the model would not see.
void EndStopped(Batch& batch, std::chrono::steady_clock::time_point now, bool ending);

// One step: the model's Forward, times, and the observer (may be null). An exception fails what was
// in the batch.
void Advance(Batch& batch, ThreadPool& pool, Workspace& workspace, SchedulerObserver* observer);

uint64_t Microseconds(std::chrono::nanoseconds time);  // 0 if negative

}  // namespace dimmer

#endif  // DIMMER_ENGINE_SCHEDULER_BATCH_H_
