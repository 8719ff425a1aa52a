#include "engine/models/decoder_batch.h"

#include <gmock/gmock.h>

#include <atomic>
#include <cmath>

#include "tests/models/decoder_runner.h"

namespace dimmer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr size_t kStride = 4;
constexpr size_t kVocabulary = 16;

ModelInfo Info() {
  ModelInfo info;
  info.architecture = "GPT2LMHeadModel";
  info.tasks = {Task::kGeneration, Task::kScoring};
  info.max_tokens = 200;
  info.vocab_size = kVocabulary;
  info.kv = {.layers = 1, .heads = 1, .head_dim = 2};
  info.cost.token_flops = 10;
  info.cost.attention_flops = 1;
  info.cost.sequence_flops = 3;
  info.cost.causal = true;
  info.cost.moe = {{0, Module::kFfn, 4, 5, 2}};
  return info;
}

class DecoderBatchTest : public testing::Test {
 protected:
  DecoderBatchTest() : info_(Info()), kv_(info_.kv, 100), threads_(1) {}
  Flight& Add(size_t tokens, Task task = Task::kGeneration, uint32_t max_new_tokens = 5) {
    Call call{
        .task = task, .ids = std::vector<int32_t>(tokens, 1), .max_new_tokens = max_new_tokens};
    call.plan.module_tau = {0.5};
    flights_.push_back(std::make_unique<Flight>(call, kv_));
    return *flights_.back();
  }
  DecoderBatch Batch(uint32_t max_prompt_tokens = 0) {
    std::vector<Sequence*> sequences;
    for (const auto& flight : flights_) sequences.push_back(&flight->sequence);
    return {info_, sequences, StepContext{threads_, workspace_, nullptr, max_prompt_tokens}};
  }
  // As a layer that runs two experts per token.
  static void RunModule(DecoderBatch& batch) {
    batch.PlanModule(0);
    for (MoeSequence& sequence : batch.moe()) {
      sequence.pairs = 2 * sequence.rows.count;
      sequence.routed = true;
      sequence.effective_tau = 0.5;
    }
    batch.AccountModule(0);
  }
  // Logits of which head row r prefers token r.
  static std::vector<float> Logits(size_t rows) {
    std::vector<float> logits(rows * kVocabulary);
    for (size_t r = 0; r < rows; ++r) logits[r * kVocabulary + r] = 5;
    return logits;
  }

  ModelInfo info_;
  KvPool kv_;
  ThreadPool threads_;
  Workspace workspace_;
  std::vector<std::unique_ptr<Flight>> flights_;
};

// A request that is cancelled between two layers leaves, and the rows of the others close up.
TEST_F(DecoderBatchTest, CompactsRowsWhenSequencesStopMidway) {
  Add(2);
  Sequence& cancelled_sequence = Add(3).sequence;
  Add(4, Task::kScoring);
  Sequence& late = Add(2).sequence;
  std::atomic<bool> cancelled = false;
  cancelled_sequence.cancelled = &cancelled;
  DecoderBatch batch = Batch();
  ASSERT_EQ(batch.tokens(), 2u + 3 + 3 + 2);
  EXPECT_THAT(batch.head_rows(), ElementsAre(1, 4, 5, 6, 7, 9));
  std::vector<float> x(batch.tokens() * kStride);
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t row = i / kStride;
    x[i] = static_cast<float>(row);
  }

  batch.DropStopped(x.data(), kStride);
  EXPECT_EQ(batch.size(), 4u);  // nobody yet
  cancelled = true;
  late.deadline = std::chrono::steady_clock::time_point::min();
  batch.DropStopped(x.data(), kStride);

  ASSERT_EQ(batch.size(), 2u);
  EXPECT_EQ(batch.tokens(), 5u);
  EXPECT_EQ(batch.rows()[1].rows.first, 2u);
  EXPECT_EQ(batch.rows()[1].kv, &flights_[2]->sequence.kv);
  EXPECT_THAT(batch.head_rows(), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(batch.ids(1).size(), 3u);
  for (size_t r = 0; r < 5; ++r) EXPECT_EQ(x[r * kStride], r < 2 ? r : r + 3);
  EXPECT_EQ(cancelled_sequence.status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(late.status.code(), absl::StatusCode::kDeadlineExceeded);
  RunModule(batch);
  batch.Advance(Logits(4).data(), kVocabulary, threads_);
  EXPECT_THAT(flights_[0]->sink.ids, ElementsAre(0));
  EXPECT_TRUE(flights_[2]->sequence.finished);
  EXPECT_EQ(flights_[2]->sequence.token_logprobs.size(), 3u);
}

TEST_F(DecoderBatchTest, LogitsThatAreNotNumbersFailTheirSequenceAlone) {
  Add(2);
  Add(3);
  Add(4, Task::kScoring);
  DecoderBatch batch = Batch();
  RunModule(batch);
  std::vector<float> logits = Logits(5);
  logits[1 * kVocabulary + 3] = NAN;
  logits[3 * kVocabulary + 2] = INFINITY;
  batch.Advance(logits.data(), kVocabulary, threads_);
  EXPECT_THAT(flights_[0]->sink.ids, ElementsAre(0));
  EXPECT_FALSE(flights_[0]->sequence.finished);
  for (size_t i : {1, 2}) {
    EXPECT_TRUE(flights_[i]->sequence.finished);
    EXPECT_EQ(flights_[i]->sequence.status.code(), absl::StatusCode::kInternal);
    EXPECT_TRUE(flights_[i]->sink.ids.empty());
  }
}

TEST_F(DecoderBatchTest, PromptsEndAtFixedBoundaries) {
  Flight& flight = Add(150);
  std::vector<uint64_t> positions, counts;
  for (int step = 0; step < 5; ++step) {
    DecoderBatch batch = Batch(1);  // less than a chunk: one chunk still
    positions.push_back(batch.rows()[0].position);
    counts.push_back(batch.tokens());
    RunModule(batch);
    batch.Advance(Logits(batch.head_rows().size()).data(), kVocabulary, threads_);
  }
  EXPECT_THAT(positions, ElementsAre(0, 64, 128, 150, 151));
  EXPECT_THAT(counts, ElementsAre(64, 64, 22, 1, 1));
  EXPECT_EQ(flight.sink.ids.size(), 3u);
}

TEST_F(DecoderBatchTest, RefusesBadInputPerSequence) {
  Add(2);
  std::vector<std::string> messages;
  const auto refuse = [&](Flight& flight, const char* message) {
    messages.resize(flights_.size());
    messages.back() = message;
    return &flight.sequence;
  };
  refuse(Add(3), "")->ids.clear();
  messages.back() = "found 0 tokens";
  refuse(Add(190, Task::kGeneration, 12),
         "found 190 tokens and 12 to come, expected at least 1 and at most 201 in all");
  refuse(Add(202, Task::kScoring), "found 202 tokens");
  refuse(Add(1, Task::kScoring), "found 1 tokens and 0 to come, expected at least 2");
  refuse(Add(3), "token id: found 16 at position 2, expected 0 to 15")->ids[2] = kVocabulary;
  refuse(Add(3), "token id: found -1 at position 0")->ids[0] = -1;
  refuse(Add(3), "GPT2LMHeadModel generates and scores text only")->task = Task::kEmbedding;
  refuse(Add(3), "max_new_tokens: found 0")->generation->max_new_tokens = 0;
  refuse(Add(3), "plan: found 2 modules, expected 1")->plan.module_tau = {0, 0};
  const size_t last = flights_.size();
  refuse(Add(3), "found pages for 0 tokens, expected 7")->kv = KvPages();
  const DecoderBatch batch = Batch();
  EXPECT_EQ(batch.size(), 1u);
  EXPECT_FALSE(flights_[0]->sequence.finished);
  for (size_t i = 1; i < flights_.size(); ++i) {
    const Sequence& sequence = flights_[i]->sequence;
    EXPECT_TRUE(sequence.finished) << i;
    EXPECT_EQ(sequence.status.code(),
              i == last ? absl::StatusCode::kInternal : absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(sequence.status.message()), HasSubstr(messages[i]));
  }
}

}  // namespace
}  // namespace dimmer
