// The waiting sequences of all models, oldest call first, and the rule by which they form batches.
//
// Thread safety: none; the scheduler's lock guards it.
#ifndef DIMMER_ENGINE_SCHEDULER_CALL_QUEUE_H_
#define DIMMER_ENGINE_SCHEDULER_CALL_QUEUE_H_

#include <absl/status/status.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <set>
#include <utility>
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
  std::list<std::shared_ptr<Job>>::iterator position;

  size_t waiting() const { return call->sequences.size() - next; }
};

// The sequences that one worker advances together. All of one served model.
struct Batch {
  struct Item {
    std::shared_ptr<Job> job;
    Sequence* sequence = nullptr;
    std::chrono::steady_clock::time_point started;
    std::chrono::nanoseconds compute{0};
  };
  std::shared_ptr<const ServedModel> model;  // null while empty
  std::vector<Item> items;
  uint64_t tokens = 0;

  bool empty() const { return items.empty(); }
};

class CallQueue {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit CallQueue(uint32_t max_sequences) : max_sequences_(max_sequences) {}

  // Takes the whole call, or nothing of it: ResourceExhausted, or InvalidArgument for a call that
  // never fits; both name the numbers.
  absl::Status Push(const std::shared_ptr<Job>& job);

  // Moves waiting sequences into `batch` until the next one would not fit: of the batch's model, or
  // of the oldest call's if it is empty (then at least one, however long). A sequence joins a
  // running batch only if no older call waits for another model, so that none starves. Calls met
  // on the way that are cancelled or late leave the queue for `dead`, which the caller answers.
  // Returns the sequences moved.
  size_t Fill(Batch& batch, TimePoint now, std::vector<std::shared_ptr<Job>>& dead);

  // Takes the rest of a call out. Harmless if nothing of it waits.
  void Remove(const std::shared_ptr<Job>& job);
  // The waiting job of a call, or null.
  std::shared_ptr<Job> Find(const Call* call) const;
  // Takes out all jobs, or those whose deadline has passed.
  std::vector<std::shared_ptr<Job>> TakeAll();
  std::vector<std::shared_ptr<Job>> TakeLate(TimePoint now);
  // TimePoint::max() if nothing that waits has a deadline.
  TimePoint earliest_deadline() const;

  bool empty() const { return jobs_.empty(); }
  size_t sequences() const { return sequences_; }

 private:
  Sequence& TakeNext(const std::shared_ptr<Job>& job);

  const size_t max_sequences_;
  size_t sequences_ = 0;
  std::list<std::shared_ptr<Job>> jobs_;  // each with a waiting sequence
  std::set<std::pair<TimePoint, Job*>> deadlines_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_SCHEDULER_CALL_QUEUE_H_
