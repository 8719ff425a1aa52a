// A small decoder that obeys the contract of engine/models/generation.h, without a network: its
// logits are a hash of what is in the sequence's own pages, so that any mix-up of pages, positions,
// chunks or random numbers changes the text.
#ifndef DIMMER_TESTS_SCHEDULER_FAKE_DECODER_H_
#define DIMMER_TESTS_SCHEDULER_FAKE_DECODER_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/layers/kv_cache.h"
#include "engine/scheduler/scheduler.h"
#include "engine/util/status.h"
#include "tests/scheduler/fake_model.h"

namespace dimmer {

class FakeDecoder : public Model {
 public:
  static constexpr uint32_t kVocabulary = 61;
  static constexpr int32_t kEnd = 0;

  // `endless`: no token ends a text.
  explicit FakeDecoder(bool endless = true) {
    info_.architecture = "FakeDecoder";
    info_.tasks = {Task::kGeneration};
    info_.max_tokens = 1 << 20;
    info_.vocab_size = kVocabulary;
    info_.kv = {.layers = 1, .heads = 1, .head_dim = 1};
    if (!endless) info_.end_ids = {kEnd};
    info_.cost = {.token_flops = 10,
                  .attention_flops = 1,
                  .sequence_flops = 5,
                  .moe = {{.layer = 0, .experts = 4, .pair_flops = 20, .router_flops = 3}},
                  .causal = true};
  }
  const ModelInfo& info() const override { return info_; }

  void Forward(std::span<Sequence* const> batch, StepContext& context) const override {
    ++steps_;
    size_t most = most_at_once_;
    while (most < batch.size() && !most_at_once_.compare_exchange_weak(most, batch.size())) {
    }
    if (turnstile != nullptr) turnstile->Pass();
    uint64_t prompt_rows = 0;
    for (Sequence* sequence : batch) Advance(*sequence, context, prompt_rows);
  }

  size_t steps() const { return steps_; }
  size_t most_at_once() const { return most_at_once_; }  // sequences in a step
  Turnstile* turnstile = nullptr;                        // not owned

 private:
  void Advance(Sequence& sequence, StepContext& context, uint64_t& prompt_rows) const {
    Generation& generation = *sequence.generation;
    if (sequence.cancelled->load()) return Stop(sequence, RequestCancelled());
    EXPECT_TRUE(generation.sink->ready());  // it would sit out
    if (!generation.budget) {
      generation.budget.emplace(sequence.plan, info_.cost, info_.calibration,
                                GenerationSize{.prompt_tokens = generation.prompt_tokens,
                                               .max_new_tokens = generation.max_new_tokens});
    }
    const uint32_t known = static_cast<uint32_t>(sequence.ids.size());
    const bool in_prompt = generation.computed + 1 < generation.prompt_tokens;
    if (in_prompt && prompt_rows > 0 && prompt_rows >= context.max_prompt_tokens) return;
    const uint32_t chunk_end = (generation.computed / kPromptChunk + 1) * kPromptChunk;
    const uint32_t end = in_prompt ? std::min(known, chunk_end) : known;
    const bool head = end == known;
    if (!generation.budget->Begin(
            {generation.computed, end - generation.computed, head ? 1u : 0u})) {
      generation.finish_reason = FinishReason::kBudget;
      return Stop(sequence, absl::OkStatus());
    }
    const uint64_t tokens = end - generation.computed;
    if (in_prompt) prompt_rows += tokens;
    const uint64_t pairs =
        std::min(tokens * (generation.budget->tau(0) > 0 ? 2 : 4), generation.budget->max_pairs(0));
    const double tau = generation.budget->tau(0);
    generation.budget->Spend(0, pairs, tau > 0, tau);
    generation.budget->End();
    for (; generation.computed < end; ++generation.computed) {
      const uint32_t at = generation.computed;
      sequence.kv.k(0, at / kKvPageTokens)[at % kKvPageTokens] = float(sequence.ids[at]);
      sequence.kv.v(0, at / kKvPageTokens)[at % kKvPageTokens] = float(pairs);
    }
    context.stats->tokens += tokens;
    context.stats->modules.at(0).experts_per_token.at(4) += tokens;
    if (head) Sample(sequence, context);
  }

  void Sample(Sequence& sequence, StepContext& context) const {
    Generation& generation = *sequence.generation;
    uint64_t hash = 0xcbf29ce484222325;
    for (uint32_t at = 0; at < generation.computed; ++at) {
      for (const float* page :
           {sequence.kv.k(0, at / kKvPageTokens), sequence.kv.v(0, at / kKvPageTokens)}) {
        hash = (hash ^ std::bit_cast<uint32_t>(page[at % kKvPageTokens])) * 0x100000001b3;
      }
    }
    std::vector<float> logits(kVocabulary);
    for (uint32_t i = 0; i < kVocabulary; ++i) logits[i] = float(4 * UniformAt(hash, i));
    SamplerScratch scratch;
    const auto sampled = SampleToken(logits, generation.sampling, generation.computed, scratch);
    if (!sampled.ok()) return Stop(sequence, sampled.status());
    if (!info_.end_ids.empty() && sampled->id == kEnd) {
      generation.finish_reason = FinishReason::kEndOfText;
      return Stop(sequence, absl::OkStatus());
    }
    ++context.stats->output_tokens;
    sequence.ids.push_back(sampled->id);
    if (generation.sink->OnToken(sampled->id, sampled->logprob) == TokenSink::Verdict::kStop) {
      generation.finish_reason = FinishReason::kStop;
    } else if (sequence.ids.size() == generation.prompt_tokens + generation.max_new_tokens) {
      generation.finish_reason = FinishReason::kLength;
    }
    if (generation.finish_reason != FinishReason::kNone) Stop(sequence, absl::OkStatus());
  }

  ModelInfo info_;
  mutable std::atomic<size_t> steps_ = 0;
  mutable std::atomic<size_t> most_at_once_ = 0;
};

inline std::shared_ptr<ServedModel> ServeDecoder(std::shared_ptr<FakeDecoder> model, size_t pages,
                                                 BatchLimits limits = {}) {
  auto served = std::make_shared<ServedModel>();
  served->name = "decoder";
  served->version = "1";
  served->kv = std::make_shared<KvPool>(model->info().kv, pages);
  served->model = std::move(model);
  served->limits = limits;
  return served;
}

// Collects a generation's tokens; its reader falls behind after every `room` of them.
class FakeSink : public TokenSink {
 public:
  explicit FakeSink(size_t room = 0) : room_(room) {}
  Verdict OnToken(int32_t id, float logprob) override {
    std::lock_guard lock(mutex_);
    tokens_.push_back(id);
    logprobs_.push_back(logprob);
    if (room_ > 0 && tokens_.size() % room_ == 0) ready_ = false;
    changed_.notify_all();
    return Verdict::kContinue;
  }
  bool ready() const override { return ready_; }
  std::chrono::steady_clock::time_point last_read() const override { return last_read_at; }

  // Set before the sink is used.
  std::chrono::steady_clock::time_point last_read_at = std::chrono::steady_clock::time_point::min();
  void Resume() { ready_ = true; }
  void AwaitTokens(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return tokens_.size() >= count; });
  }
  std::vector<int32_t> tokens() const {
    std::lock_guard lock(mutex_);
    return tokens_;
  }
  std::vector<float> logprobs() const {
    std::lock_guard lock(mutex_);
    return logprobs_;
  }

 private:
  const size_t room_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> ready_ = true;
  std::vector<int32_t> tokens_;
  std::vector<float> logprobs_;
};

struct FakePrompt {
  int32_t first = 1;
  size_t tokens = 5;
  uint32_t max_new_tokens = 10;
  Sampling sampling = {};
  size_t room = 0;  // of the sink
  ComputePlan plan = {};
};

// One generation, with its answer.
class FakeStream {
 public:
  FakeStream(
      const std::shared_ptr<ServedModel>& model, const FakePrompt& prompt,
      std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max())
      : sink(std::make_shared<FakeSink>(prompt.room)) {
    Sequence sequence;
    sequence.task = Task::kGeneration;
    for (size_t i = 0; i < prompt.tokens; ++i) {
      sequence.ids.push_back(int32_t((prompt.first + i * i) % FakeDecoder::kVocabulary));
    }
    sequence.plan = prompt.plan;
    sequence.generation = std::make_unique<Generation>();
    sequence.generation->max_new_tokens = prompt.max_new_tokens;
    sequence.generation->sampling = prompt.sampling;
    sequence.generation->prompt_tokens = uint32_t(prompt.tokens);
    sequence.generation->sink = sink.get();
    call->model = model;
    call->sequences.push_back(std::move(sequence));
    call->deadline = deadline;
    call->done = [answer = answer_, sink = sink](Call& done) {
      std::lock_guard lock(answer->mutex);
      answer->status = done.sequences[0].status;
      answer->reason = done.sequences[0].generation->finish_reason;
      answer->usage = done.sequences[0].usage;
      answer->done = true;
      answer->changed.notify_all();
    };
  }

  absl::Status Await() const {
    std::unique_lock lock(answer_->mutex);
    answer_->changed.wait(lock, [&] { return answer_->done; });
    return answer_->status;
  }
  FinishReason reason() const {
    std::lock_guard lock(answer_->mutex);
    return answer_->reason;
  }
  Usage usage() const {
    std::lock_guard lock(answer_->mutex);
    return answer_->usage;
  }
  bool answered() const {
    std::lock_guard lock(answer_->mutex);
    return answer_->done;
  }

  std::shared_ptr<FakeSink> sink;
  std::shared_ptr<Call> call = std::make_shared<Call>();

 private:
  struct Answer {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
    absl::Status status;
    FinishReason reason = FinishReason::kNone;
    Usage usage;
  };
  std::shared_ptr<Answer> answer_ = std::make_shared<Answer>();
};

}  // namespace dimmer

#endif  // DIMMER_TESTS_SCHEDULER_FAKE_DECODER_H_
