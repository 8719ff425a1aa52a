// A model whose steps a test watches and holds, and calls that wait for their answers.
#ifndef DIMMER_TESTS_SCHEDULER_FAKE_MODEL_H_
#define DIMMER_TESTS_SCHEDULER_FAKE_MODEL_H_

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/scheduler/scheduler.h"

namespace dimmer {

// Threads that pass announce themselves and wait to be let through.
class Turnstile {
 public:
  void Pass() {
    std::unique_lock lock(mutex_);
    const size_t number = ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_ || number <= allowed_; });
  }
  // Waits until `count` have arrived in all.
  void AwaitArrivals(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return arrived_ >= count; });
  }
  void LetThrough(size_t count) {
    std::lock_guard lock(mutex_);
    allowed_ += count;
    changed_.notify_all();
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t arrived_ = 0;
  size_t allowed_ = 0;
  bool open_ = false;
};

// A sequence of the fake model: it takes `steps` steps and `tokens` tokens. A step adds its name to
// Sequence::logits; a cancelled or late sequence leaves at once.
struct FakeSequence {
  int32_t name = 0;
  int32_t steps = 1;
  size_t tokens = 2;  // at least 2
};

inline Sequence MakeSequence(const FakeSequence& fake) {
  Sequence sequence;
  sequence.ids.assign(fake.tokens, 0);
  sequence.ids[0] = fake.name;
  sequence.ids[1] = fake.steps;
  sequence.type_ids.assign(fake.tokens, 0);
  return sequence;
}

class FakeModel : public Model {
 public:
  // Names of the sequences of a step, in the batch's order.
  using Step = std::vector<int32_t>;

  FakeModel() {
    info_.architecture = "Fake";
    info_.cost.moe = {{.layer = 0, .experts = 4, .pair_flops = 1}};
  }
  const ModelInfo& info() const override { return info_; }

  void Forward(std::span<Sequence* const> batch, StepContext& context) const override {
    Step names;
    for (const Sequence* sequence : batch) names.push_back(sequence->ids[0]);
    {
      std::lock_guard lock(mutex_);
      steps_.push_back(names);
    }
    if (turnstile != nullptr) turnstile->Pass();
    if (on_step) on_step(batch);
    for (Sequence* sequence : batch) Advance(*sequence, context);
  }

  std::vector<Step> steps() const {
    std::lock_guard lock(mutex_);
    return steps_;
  }

  Turnstile* turnstile = nullptr;                                // not owned
  std::function<void(std::span<Sequence* const>)> on_step = {};  // may throw

 private:
  static void Advance(Sequence& sequence, StepContext& context) {
    context.stats->tokens += sequence.ids.size();
    context.stats->modules.at(0).experts_per_token.at(4) += sequence.ids.size();
    sequence.logits.push_back(static_cast<float>(sequence.ids[0]));
    if (sequence.cancelled->load()) {
      sequence.status = absl::CancelledError("Request was cancelled");
    } else if (sequence.deadline <= std::chrono::steady_clock::now()) {
      sequence.status = absl::DeadlineExceededError("Request timeout expired");
    } else if (sequence.logits.size() < static_cast<size_t>(sequence.ids[1])) {
      return;
    }
    sequence.finished = true;
  }

  ModelInfo info_;
  mutable std::mutex mutex_;
  mutable std::vector<Step> steps_;
};

struct FakeServed {
  std::shared_ptr<FakeModel> model = std::make_shared<FakeModel>();
  std::shared_ptr<ServedModel> served = std::make_shared<ServedModel>();

  explicit FakeServed(std::string name, BatchLimits limits = {}, Turnstile* turnstile = nullptr) {
    model->turnstile = turnstile;
    served->name = std::move(name);
    served->version = "1";
    served->model = model;
    served->limits = limits;
  }
};

// A call, with its answer.
class FakeCall {
 public:
  FakeCall(const FakeServed& model, const std::vector<FakeSequence>& sequences,
           std::chrono::steady_clock::time_point deadline =
               std::chrono::steady_clock::time_point::max()) {
    call->model = model.served;
    for (const FakeSequence& fake : sequences) call->sequences.push_back(MakeSequence(fake));
    call->deadline = deadline;
    call->done = [answer = answer_](Call& done) {
      std::lock_guard lock(answer->mutex);
      ++answer->count;
      for (const Sequence& sequence : done.sequences) {
        answer->statuses.push_back(sequence.status);
        answer->finished &= sequence.finished;
      }
      answer->changed.notify_all();
    };
  }

  // Waits for the answer: the status of each sequence.
  std::vector<absl::Status> Await() const {
    std::unique_lock lock(answer_->mutex);
    answer_->changed.wait(lock, [&] { return answer_->count > 0; });
    return answer_->statuses;
  }
  std::vector<absl::StatusCode> AwaitCodes() const {
    std::vector<absl::StatusCode> codes;
    for (const absl::Status& status : Await()) codes.push_back(status.code());
    return codes;
  }
  int answers() const {
    std::lock_guard lock(answer_->mutex);
    return answer_->count;
  }
  bool all_finished() const {
    std::lock_guard lock(answer_->mutex);
    return answer_->finished;
  }

  std::shared_ptr<Call> call = std::make_shared<Call>();

 private:
  struct Answer {
    std::mutex mutex;
    std::condition_variable changed;
    int count = 0;
    bool finished = true;
    std::vector<absl::Status> statuses;
  };
  std::shared_ptr<Answer> answer_ = std::make_shared<Answer>();
};

}  // namespace dimmer

#endif  // DIMMER_TESTS_SCHEDULER_FAKE_MODEL_H_
