// Runs generations and scorings on a model as a scheduler does, step by step.
#ifndef DIMMER_TESTS_MODELS_DECODER_RUNNER_H_
#define DIMMER_TESTS_MODELS_DECODER_RUNNER_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/layers/kv_cache.h"
#include "engine/layers/workspace.h"
#include "engine/models/model.h"
#include "tests/models/test_decoders.h"
#include "tests/models/test_packages.h"

namespace dimmer {

inline std::unique_ptr<Model> LoadFrom(const std::string& directory) {
  absl::StatusOr<Package> package = Package::Open(directory);
  EXPECT_TRUE(package.ok()) << package.status();
  absl::StatusOr<std::unique_ptr<Model>> model = LoadModel(*package);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

inline std::unique_ptr<Model> Load(const TestDecoder& decoder) {
  const TempDirectory directory;
  WriteTestDecoder(decoder, directory.path());
  return LoadFrom(directory.path());  // the files are gone from here on
}

// What is asked.
struct Call {
  Task task = Task::kGeneration;
  std::vector<int32_t> ids;
  uint32_t max_new_tokens = 8;
  Sampling sampling;
  ComputePlan plan;
};

// What came. Two of them are equal if every bit is.
struct Answer {
  absl::Status status;
  std::vector<int32_t> output;
  std::vector<float> logprobs;  // as the sink got them; of a scoring, the scores
  FinishReason finish_reason = FinishReason::kNone;
  Usage usage;

  friend bool operator==(const Answer& a, const Answer& b) {
    return a.status == b.status && a.output == b.output && a.logprobs == b.logprobs &&
           a.finish_reason == b.finish_reason && a.usage.flops == b.usage.flops &&
           a.usage.dense_flops == b.usage.dense_flops && a.usage.tau == b.usage.tau;
  }
};

class Recorder : public TokenSink {
 public:
  Verdict OnToken(int32_t id, float logprob) override {
    ids.push_back(id);
    logprobs.push_back(logprob);
    return ids.size() == stop_after ? Verdict::kStop : Verdict::kContinue;
  }
  bool ready() const override { return true; }

  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  size_t stop_after = 0;  // 0: never
};

// One call in flight. Stays where it is: the sequence points to its sink.
struct Flight {
  Flight(const Call& call, KvPool& pool) {
    sequence.task = call.task;
    sequence.ids = call.ids;
    sequence.plan = call.plan;
    size_t tokens = call.ids.size();
    if (call.task == Task::kGeneration) {
      sequence.generation = std::make_unique<Generation>();
      sequence.generation->max_new_tokens = call.max_new_tokens;
      sequence.generation->sampling = call.sampling;
      sequence.generation->sink = &sink;
      tokens += call.max_new_tokens;
    }
    prompt = call.ids.size();
    sequence.kv = *pool.Reserve(tokens);
  }
  Flight(const Flight&) = delete;
  Flight& operator=(const Flight&) = delete;

  Answer answer() const {
    Answer got;
    got.status = sequence.status;
    got.usage = sequence.usage;
    got.output.assign(sequence.ids.begin() + static_cast<std::ptrdiff_t>(prompt),
                      sequence.ids.end());
    got.logprobs = sink.logprobs;
    if (sequence.task == Task::kScoring) {
      got.logprobs = sequence.token_logprobs;
    } else {
      got.finish_reason = sequence.generation->finish_reason;
      EXPECT_EQ(sink.ids, got.output);
    }
    return got;
  }

  Recorder sink;
  size_t prompt = 0;
  Sequence sequence;
};

struct RunSettings {
  size_t threads = 1;
  uint32_t max_prompt_tokens = 0;
  uint32_t join_seed = 0;  // not 0: calls join at random steps, and pages lie anywhere
};

// Threads and scratch memory of one worker.
class Worker {
 public:
  explicit Worker(size_t threads = 1, uint32_t max_prompt_tokens = 0)
      : threads_(threads), max_prompt_tokens_(max_prompt_tokens) {}
  StepStats Step(const Model& model, const std::vector<Sequence*>& batch) {
    StepStats stats;
    StepContext context{threads_, workspace_, &stats, max_prompt_tokens_};
    model.Forward(batch, context);
    return stats;
  }

 private:
  ThreadPool threads_;
  Workspace workspace_;
  uint32_t max_prompt_tokens_;
};

inline std::vector<Answer> RunCalls(const Model& model, const std::vector<Call>& calls,
                                    const RunSettings& settings = {}) {
  size_t pages = 0;
  size_t most_steps = 10;
  for (const Call& call : calls) {
    pages += KvPool::PagesFor(call.ids.size() + call.max_new_tokens);
    most_steps += call.ids.size() + call.max_new_tokens + 10;
  }
  KvPool pool(model.info().kv, pages);
  std::vector<std::unique_ptr<Flight>> flights(calls.size());
  std::mt19937 random(settings.join_seed);
  Worker worker(settings.threads, settings.max_prompt_tokens);
  for (size_t step = 0;; ++step) {
    EXPECT_LT(step, most_steps) << "does not end";
    if (step >= most_steps) break;
    std::vector<Sequence*> batch;
    size_t left = 0;
    for (size_t i = 0; i < calls.size(); ++i) {
      const bool joins = settings.join_seed == 0 || random() % 4 == 0 || step > 60;
      if (flights[i] == nullptr && joins) flights[i] = std::make_unique<Flight>(calls[i], pool);
      if (flights[i] == nullptr || !flights[i]->sequence.finished) ++left;
      if (flights[i] != nullptr && !flights[i]->sequence.finished) {
        batch.push_back(&flights[i]->sequence);
      }
    }
    if (left == 0) break;
    worker.Step(model, batch);
    // A scheduler gives the pages of those that are through to others.
    for (Sequence* sequence : batch) {
      if (sequence->finished) sequence->kv = KvPages();
    }
  }
  EXPECT_EQ(pool.free_pages(), pool.pages());
  std::vector<Answer> answers;
  for (const auto& flight : flights) answers.push_back(flight->answer());
  return answers;
}

inline Answer RunCall(const Model& model, const Call& call, const RunSettings& settings = {}) {
  return RunCalls(model, {call}, settings)[0];
}

inline ComputePlan TauPlan(const Model& model, double tau) {
  ComputePlan plan;
  plan.module_tau.assign(model.info().cost.moe.size(), tau);
  return plan;
}

// A call's plan under a budget, as the engine makes it.
inline ComputePlan PlanFor(const Model& model, const Call& call, const Budget& budget,
                           const TauSettings& settings = {}) {
  const GenerationSize size{
      .prompt_tokens = call.ids.size(),
      .max_new_tokens = call.task == Task::kScoring ? 0 : call.max_new_tokens};
  absl::StatusOr<ComputePlan> plan = PlanGeneration(budget, settings, model.info().cost, size);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *plan;
}

}  // namespace dimmer

#endif  // DIMMER_TESTS_MODELS_DECODER_RUNNER_H_
