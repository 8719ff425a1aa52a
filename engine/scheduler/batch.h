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
#include <optional>
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
    // Since when the reader of a generation is behind; nothing if it is not.
    std::optional<std::chrono::steady_clock::time_point> behind_since = std::nullopt;
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
// Whether `sequence` may join. Of BatchLimits::max_batch_size, generations whose readers are behind
// take nothing.
bool Fits(const Batch& batch, const ServedModel& model, const Sequence& sequence);

// Tokens of the sequence whose keys and values can come to be kept: what its pages are reserved
// for. The last token has none.
size_t KvTokens(const Sequence& sequence);

// InvalidArgument with both numbers: a sequence needs more pages than the model's KvPool has in
// all.
absl::Status CheckPages(const Call& call);

// Marks what runs in this step: all but generations whose readers are behind, and of the others
// max_batch_size at most, who take turns. False if there is none.
bool MarkRunnable(Batch& batch, std::chrono::steady_clock::time_point now);

// Finishes sequences that were cancelled or are late, generations whose readers have been behind
// for `reader_timeout`, and all generations where they are `ending`: also those that sit out, which
// the model does not see.
void EndStopped(Batch& batch, std::chrono::steady_clock::time_point now,
                std::chrono::nanoseconds reader_timeout, bool ending);

// When EndStopped() has something to do at the latest, if all of the batch sit out.
std::chrono::steady_clock::time_point EarliestEnd(const Batch& batch,
                                                  std::chrono::nanoseconds reader_timeout);

// One step of what is marked: the model's Forward, times, and the observer (may be null). An
// exception fails what ran.
void Advance(Batch& batch, ThreadPool& pool, Workspace& workspace, SchedulerObserver* observer);

uint64_t Microseconds(std::chrono::nanoseconds time);  // 0 if negative

}  // namespace dimmer

#endif  // DIMMER_ENGINE_SCHEDULER_BATCH_H_
