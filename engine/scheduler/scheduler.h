// Bounded queue -> batches -> Model::Forward, on worker threads of its own.
//
// Batching: a free worker takes the oldest call's sequences and fills the batch with others of the
// same model, whatever their budgets, up to the model's limits. Nothing waits for a batch to fill.
// Sequences join and leave between steps. A worker whose batch takes several steps opens a second
// one for calls of another model, and steps them in turn.
//
// Admission: of a model with a KvPool, a sequence joins once the pool has free pages for all tokens
// that it may come to have, so that what runs never lacks one; until then it waits, and those
// behind it in its model's line with it. Pages are free again within a step of its end.
//
// A generation whose sink is not ready sits out, and makes room in its batch for others; it keeps
// its pages, for SchedulerOptions::reader_timeout at most. A worker of whose sequences all sit out
// sleeps until Wake().
//
// Thread safety: all methods may be called from any thread. Callbacks run on a thread of the
// scheduler, without its lock: they may call Submit and Cancel, and must not block.
#ifndef DIMMER_ENGINE_SCHEDULER_SCHEDULER_H_
#define DIMMER_ENGINE_SCHEDULER_SCHEDULER_H_

#include <absl/status/status.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/models/model.h"

namespace dimmer {

class KvPool;  // engine/layers/kv_cache.h

struct BatchLimits {
  uint32_t max_batch_tokens = 4096;
  uint32_t max_batch_size = 64;
};

// What a worker learned from one step; for metrics. Called on the worker's thread; what it throws
// is dropped.
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;
  virtual void OnStep(const std::string& model, const std::string& version, const StepStats& stats,
                      std::chrono::nanoseconds compute) = 0;
};

// A model as it is served. Immutable; kept alive by the calls that use it.
struct ServedModel {
  std::string name;
  std::string version;
  std::shared_ptr<const Model> model;
  BatchLimits limits;
  std::shared_ptr<KvPool> kv;  // null: the model keeps no keys and values (encoders)
};

// All sequences of one call: admitted, refused and answered together.
struct Call {
  std::shared_ptr<const ServedModel> model;
  std::vector<Sequence> sequences;
  // Submit() lets Sequence::cancelled and Sequence::deadline say the same.
  std::atomic<bool> cancelled = false;
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  std::chrono::steady_clock::time_point enqueued;  // set by Submit()
  // Called exactly once; what it throws is dropped. Each sequence has its own status, and its usage
  // with times.
  std::function<void(Call& call)> done;
};

struct SchedulerOptions {
  uint32_t workers = 1;             // batches computed at the same time
  uint32_t threads_per_worker = 1;  // threads inside one batch
  uint32_t max_queue_size = 1024;   // sequences waiting, all models together
  // Generations whose sinks were not ready, and whose readers took nothing, for so long end with
  // Aborted.
  std::chrono::nanoseconds reader_timeout = std::chrono::minutes(10);
};

class Scheduler {
 public:
  Scheduler(SchedulerOptions options, SchedulerObserver* observer /* may be null, not owned */);
  // Waits for running batches; calls still queued, and generations, are answered with Unavailable.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Takes the call whole, or returns why not and never calls done: ResourceExhausted "Exceeds
  // maximum queue size" (with the numbers), InvalidArgument without sequences, with more than the
  // queue takes in all or more tokens than the model's KvPool has pages for, Unavailable after
  // Drain.
  absl::Status Submit(std::shared_ptr<Call> call);

  // Cancels a call: still queued, it is answered at once with Cancelled; running, it leaves its
  // batch at the next layer. Harmless if the call is done.
  void Cancel(const std::shared_ptr<Call>& call);

  // A sink that was not ready may be again: workers whose sequences all sat out look once more.
  void Wake();

  // Accepts nothing more and waits for queue and batches to empty, or for the deadline. True if
  // everything was answered. Generations that are left shortly before the deadline (a tenth of the
  // time, at most a second) end with Unavailable.
  bool Drain(std::chrono::steady_clock::time_point deadline);

  struct Load {
    uint64_t queued = 0;  // sequences
    uint64_t running = 0;
  };
  Load load(const std::string& model) const;
  Load load() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_SCHEDULER_SCHEDULER_H_
