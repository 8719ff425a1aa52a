#include "engine/models/running_batch.h"

#include <gtest/gtest.h>

#include <vector>

namespace dimmer {
namespace {

constexpr size_t kStride = 4;

ModelInfo Info() {
  ModelInfo info;
  info.tasks = {Task::kClassification, Task::kEmbedding};
  info.max_tokens = 16;
  info.vocab_size = 100;
  info.cost.token_flops = 10;
  info.cost.sequence_flops = 3;
  info.cost.moe = {{0, Module::kFfn, 4, 5, 2}};
  return info;
}

std::vector<Sequence> Texts(std::initializer_list<size_t> lengths) {
  std::vector<Sequence> sequences;
  for (size_t length : lengths) {
    Sequence& sequence = sequences.emplace_back();
    sequence.ids.assign(length, 1);
    sequence.plan.module_tau = {0.5};
  }
  return sequences;
}

std::vector<Sequence*> Pointers(std::vector<Sequence>& sequences) {
  std::vector<Sequence*> pointers;
  for (Sequence& sequence : sequences) pointers.push_back(&sequence);
  return pointers;
}

// A request that is cancelled between two layers leaves, and the rows of the others close up.
TEST(RunningBatch, CompactsRowsWhenSequencesStopMidway) {
  const ModelInfo info = Info();
  std::vector<Sequence> sequences = Texts({2, 3, 1, 2});
  std::atomic<bool> cancelled = false;
  sequences[1].cancelled = &cancelled;
  RunningBatch batch(info, 2, Pointers(sequences), nullptr);
  std::vector<float> x(batch.tokens() * kStride);
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t row = i / kStride;
    x[i] = static_cast<float>(row);
  }

  batch.DropStopped(x.data(), kStride);
  EXPECT_EQ(batch.size(), 4u);  // nobody yet
  cancelled = true;
  sequences[3].deadline = std::chrono::steady_clock::time_point::min();
  batch.DropStopped(x.data(), kStride);

  ASSERT_EQ(batch.size(), 2u);
  EXPECT_EQ(batch.tokens(), 3u);
  EXPECT_EQ(&batch.sequence(1), &sequences[2]);
  EXPECT_EQ(batch.rows()[1].first, 2u);
  for (size_t c = 0; c < kStride; ++c) {
    EXPECT_EQ(x[0 * kStride + c], 0);
    EXPECT_EQ(x[1 * kStride + c], 1);
    EXPECT_EQ(x[2 * kStride + c], 5);
  }
  EXPECT_TRUE(sequences[1].finished);
  EXPECT_EQ(sequences[1].status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sequences[3].status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(sequences[0].finished);
}

TEST(RunningBatch, AHardBudgetThatMaxTauExcludesFailsItsSequenceAlone) {
  const ModelInfo info = Info();
  std::vector<Sequence> sequences = Texts({2, 3});
  ComputePlan& plan = sequences[0].plan;
  plan.kind = ComputePlan::Kind::kQuota;
  plan.module_tau.clear();
  plan.module_weight = {1};
  plan.hard = true;
  plan.target_flops = info.cost.FloorFlops(2);
  RunningBatch batch(info, 2, Pointers(sequences), nullptr);
  batch.PlanModule(0);
  ASSERT_TRUE(batch.moe()[0].quota.has_value());
  EXPECT_EQ(batch.moe()[0].quota->pairs, 2u);
  batch.moe()[0].needed = 5;  // as the gate would say
  batch.moe()[1].pairs = 4;
  batch.moe()[1].routed = true;
  batch.moe()[1].effective_tau = 0.5;
  batch.AccountModule(0);
  std::vector<float> x(batch.tokens() * kStride);
  batch.DropStopped(x.data(), kStride);
  EXPECT_EQ(sequences[0].status.code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ(batch.size(), 1u);
  batch.Finish(0);
  EXPECT_EQ(sequences[1].usage.flops, 3u * 10 + 3 + 4 * 5 + 3 * 2);
  EXPECT_EQ(sequences[1].usage.dense_flops, info.cost.DenseFlops(3));
  EXPECT_EQ(sequences[1].usage.tau, 0.5);
}

TEST(RunningBatch, RefusesAPlanForAnotherModel) {
  const ModelInfo info = Info();
  std::vector<Sequence> sequences = Texts({2});
  sequences[0].plan.module_tau = {0, 0};
  const RunningBatch batch(info, 2, Pointers(sequences), nullptr);
  EXPECT_TRUE(batch.empty());
  EXPECT_EQ(sequences[0].status.code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace dimmer
