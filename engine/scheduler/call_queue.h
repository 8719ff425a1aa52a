// The waiting sequences of all models, oldest call first, and the rule by which they form batches.
//
// Thread safety: none; the scheduler's lock guards it.
#ifndef DIMMER_ENGINE_SCHEDULER_CALL_QUEUE_H_
#define DIMMER_ENGINE_SCHEDULER_CALL_QUEUE_H_

#include <absl/status/status.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "engine/scheduler/batch.h"

namespace dimmer {

class CallQueue {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Jobs = std::vector<std::shared_ptr<Job>>;

  explicit CallQueue(uint32_t max_sequences) : max_sequences_(max_sequences) {}

  // Takes the whole call, or nothing of it: ResourceExhausted, or InvalidArgument for a call that
  // never fits; both name the numbers.
  absl::Status Push(const std::shared_ptr<Job>& job);

  // Moves waiting sequences of the batch's model into it, in the order in which they came, until
  // the next one does not fit: the batch's limits, or too few free pages in the model's KvPool for
  // all the tokens that it may come to have. Calls met on the way that are cancelled or late leave
  // the queue for `dead`, which the caller answers. Returns the sequences moved.
  size_t Join(Batch& batch, TimePoint now, Jobs& dead);
  // The same for a new batch: of the model of the oldest call that fits, but those that `held` has
  // batches of. At least one sequence, however long; empty if there is none.
  Batch Open(const std::list<Batch>& held, TimePoint now, Jobs& dead);
  // Whether Join() one of `held` or Open() would move anything.
  bool CanServe(const std::list<Batch>& held) const;

  // Takes the rest of a call out. Harmless if nothing of it waits.
  void Remove(const std::shared_ptr<Job>& job);
  // The waiting job of a call, or null.
  std::shared_ptr<Job> Find(const Call* call) const;
  // Takes out all jobs for which `which` holds, or those whose deadline has passed.
  Jobs TakeIf(const std::function<bool(const Job&)>& which);
  Jobs TakeAll();
  Jobs TakeLate(TimePoint now);
  // TimePoint::max() if nothing that waits has a deadline.
  TimePoint earliest_deadline() const;

  bool empty() const { return jobs_.empty(); }
  size_t sequences() const { return sequences_; }

 private:
  // What waits for one served model, oldest first.
  struct Line {
    std::list<std::shared_ptr<Job>> jobs;
  };
  using Lines = std::map<const ServedModel*, Line>;

  // Takes calls that nobody waits for any more off the front of a line; false if nothing is left.
  bool Trim(const ServedModel* model, TimePoint now, Jobs& dead);
  Sequence& TakeNext(const std::shared_ptr<Job>& job);

  const size_t max_sequences_;
  size_t sequences_ = 0;
  uint64_t pushed_ = 0;
  std::list<std::shared_ptr<Job>> jobs_;  // each with a waiting sequence, oldest first
  Lines lines_;                           // the same by model; none is empty
  std::set<std::pair<TimePoint, Job*>> deadlines_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_SCHEDULER_CALL_QUEUE_H_
