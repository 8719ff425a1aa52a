#include "engine/scheduler/call_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/layers/kv_cache.h"
#include "tests/scheduler/fake_model.h"

namespace dimmer {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using TimePoint = CallQueue::TimePoint;

const TimePoint kNow{};

std::shared_ptr<Job> MakeJob(const FakeServed& model, const std::vector<FakeSequence>& sequences,
                             TimePoint deadline = TimePoint::max()) {
  return std::make_shared<Job>(
      Job{.call = FakeCall(model, sequences, deadline).call, .open = sequences.size()});
}

std::vector<int32_t> Names(const Batch& batch) {
  std::vector<int32_t> names;
  for (const Batch::Item& item : batch.items) names.push_back(item.sequence->ids[0]);
  return names;
}

class CallQueueTest : public testing::Test {
 protected:
  std::shared_ptr<Job> Push(const FakeServed& model, const std::vector<FakeSequence>& sequences,
                            TimePoint deadline = TimePoint::max()) {
    auto job = MakeJob(model, sequences, deadline);
    EXPECT_TRUE(queue_.Push(job).ok());
    return job;
  }
  std::vector<int32_t> Fill(Batch& batch) {
    const size_t before = batch.items.size();
    const size_t waiting = queue_.sequences();
    const size_t moved = batch.empty() ? Open(batch) : queue_.Join(batch, kNow, dead_);
    EXPECT_EQ(batch.items.size(), before + moved);
    if (dead_.empty()) {
      EXPECT_EQ(queue_.sequences(), waiting - moved);
    }
    return Names(batch);
  }

  size_t Open(Batch& batch) {
    batch = queue_.Open({}, kNow, dead_);
    return batch.items.size();
  }

  CallQueue queue_{100};
  std::vector<std::shared_ptr<Job>> dead_;
  FakeServed a_{"a", {.max_batch_tokens = 20, .max_batch_size = 4}};
  FakeServed b_{"b", {.max_batch_tokens = 20, .max_batch_size = 4}};
};

TEST_F(CallQueueTest, TakesWholeCallsOrNothing) {
  CallQueue queue(3);
  const absl::Status large = queue.Push(MakeJob(a_, {{1}, {2}, {3}, {4}}));
  EXPECT_EQ(large.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(large.message()),
              HasSubstr("the call has 4 sequences, the queue takes 3"));
  EXPECT_TRUE(queue.Push(MakeJob(a_, {{1}, {2}})).ok());
  const absl::Status full = queue.Push(MakeJob(b_, {{3}, {4}}));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(full.message(),
            "Exceeds maximum queue size: 2 sequences wait and the call has 2, the queue takes 3");
  EXPECT_EQ(queue.sequences(), 2u);
  EXPECT_TRUE(queue.Push(MakeJob(b_, {{3}})).ok());
}

TEST_F(CallQueueTest, FillsABatchWithTheOldestModelsCalls) {
  Push(b_, {{1}});
  Push(a_, {{2}});
  Push(b_, {{3}, {4}});
  Batch batch;
  EXPECT_THAT(Fill(batch), ElementsAre(1, 3, 4));
  EXPECT_EQ(batch.model, b_.served);
  EXPECT_EQ(batch.tokens, 6u);
  Batch other;
  EXPECT_THAT(Fill(other), ElementsAre(2));
  EXPECT_TRUE(queue_.empty());
}

TEST_F(CallQueueTest, KeepsToBothLimitsAndSplitsCalls) {
  Push(a_, {{1}, {2}, {3}, {4}, {5}, {6, 1, 15}, {7, 1, 6}, {8, 1, 50}, {9}});
  for (const std::vector<int32_t>& want :
       std::vector<std::vector<int32_t>>{{1, 2, 3, 4}, {5, 6}, {7}, {8}, {9}, {}}) {
    Batch batch;
    EXPECT_EQ(Fill(batch), want);
  }
}

TEST_F(CallQueueTest, AShortOneDoesNotOvertakeALongOne) {
  Push(a_, {{1, 1, 10}});
  Push(a_, {{2, 1, 15}});
  Push(a_, {{3, 1, 2}});
  Batch batch;
  EXPECT_THAT(Fill(batch), ElementsAre(1));
}

TEST_F(CallQueueTest, ASecondBatchIsOfAnotherModel) {
  std::list<Batch> held(1);
  Push(a_, {{1}, {2}, {3}, {4}, {5}});
  EXPECT_TRUE(queue_.CanServe({}));
  EXPECT_THAT(Fill(held.front()), ElementsAre(1, 2, 3, 4));
  EXPECT_TRUE(queue_.CanServe({}));
  EXPECT_FALSE(queue_.CanServe(held));  // full
  EXPECT_TRUE(queue_.Open(held, kNow, dead_).empty());
  Push(b_, {{6}});
  EXPECT_TRUE(queue_.CanServe(held));
  held.push_back(queue_.Open(held, kNow, dead_));
  EXPECT_THAT(Names(held.back()), ElementsAre(6));
  Push(b_, {{7}});
  EXPECT_TRUE(queue_.CanServe(held));
  EXPECT_TRUE(queue_.Open(held, kNow, dead_).empty());
  EXPECT_THAT(Fill(held.back()), ElementsAre(6, 7));
  EXPECT_FALSE(queue_.CanServe(held));
}

TEST_F(CallQueueTest, PagesAreReservedForAllThatASequenceCanBecome) {
  a_.served->kv = std::make_shared<KvPool>(KvShape{1, 1, 1}, 10);
  auto call = [&](int32_t name, size_t prompt, uint32_t more) {
    auto job = MakeJob(a_, {{name, 1, prompt}});
    job->call->sequences[0].generation = std::make_unique<Generation>();
    job->call->sequences[0].generation->max_new_tokens = more;
    EXPECT_TRUE(queue_.Push(job).ok());
    return job;
  };
  const auto first = call(1, 16, 49);   // 4 pages: the last token needs none
  const auto second = call(2, 33, 65);  // 7 pages: not beside the first
  const auto third = call(3, 2, 1);     // 1 page, but behind the second
  const auto other = Push(b_, {{4}});
  std::list<Batch> held(1);
  EXPECT_THAT(Fill(held.front()), ElementsAre(1));
  EXPECT_EQ(a_.served->kv->free_pages(), 6u);
  EXPECT_EQ(first->call->sequences[0].kv.tokens(), 64u);
  EXPECT_THAT(Fill(held.front()), ElementsAre(1));
  EXPECT_TRUE(queue_.CanServe({}));  // b's
  held.push_back(queue_.Open({}, kNow, dead_));
  EXPECT_THAT(Names(held.back()), ElementsAre(4));
  EXPECT_FALSE(queue_.CanServe({}));
  first->call->sequences[0].kv = KvPages();
  EXPECT_TRUE(queue_.CanServe({}));
  EXPECT_THAT(Fill(held.front()), ElementsAre(1, 2, 3));
  EXPECT_EQ(a_.served->kv->free_pages(), 2u);
}

TEST_F(CallQueueTest, VersionsOfAModelDoNotMix) {
  const FakeServed reloaded("a");
  Push(a_, {{1}});
  Push(reloaded, {{2}});
  Batch batch;
  EXPECT_THAT(Fill(batch), ElementsAre(1));
}

TEST_F(CallQueueTest, CancelledAndLateCallsLeave) {
  const auto cancelled = Push(a_, {{1}, {2}});
  cancelled->call->cancelled = true;
  const auto late = Push(b_, {{3}}, kNow);
  Push(a_, {{4}}, kNow + seconds(1));
  Batch batch;
  EXPECT_THAT(Fill(batch), ElementsAre(4));
  EXPECT_THAT(dead_, ElementsAre(cancelled, late));
  EXPECT_EQ(queue_.sequences(), 0u);
  EXPECT_EQ(queue_.earliest_deadline(), TimePoint::max());
}

TEST_F(CallQueueTest, TakesOutTheLateInOrderOfTheirDeadlines) {
  EXPECT_EQ(queue_.earliest_deadline(), TimePoint::max());
  Push(a_, {{1}});
  const auto second = Push(a_, {{2}}, kNow + seconds(2));
  const auto first = Push(b_, {{3}, {4}}, kNow + seconds(1));
  const auto third = Push(b_, {{5}}, kNow + seconds(3));
  EXPECT_EQ(queue_.earliest_deadline(), kNow + seconds(1));
  EXPECT_THAT(queue_.TakeLate(kNow), IsEmpty());
  EXPECT_THAT(queue_.TakeLate(kNow + seconds(2)), ElementsAre(first, second));
  EXPECT_EQ(queue_.earliest_deadline(), kNow + seconds(3));
  EXPECT_EQ(queue_.sequences(), 2u);
}

TEST_F(CallQueueTest, RemovesTheRestOfACall) {
  const auto job = Push(a_, {{1}, {2}, {3}, {4}, {5}, {6}}, kNow + seconds(1));
  Batch batch;
  EXPECT_THAT(Fill(batch), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(queue_.Find(job->call.get()), job);
  queue_.Remove(job);
  queue_.Remove(job);
  EXPECT_EQ(queue_.Find(job->call.get()), nullptr);
  EXPECT_EQ(queue_.sequences(), 0u);
  EXPECT_EQ(queue_.earliest_deadline(), TimePoint::max());
  EXPECT_EQ(job->next, 4u);
}

TEST_F(CallQueueTest, TakesAll) {
  const auto first = Push(a_, {{1}, {2}});
  const auto second = Push(b_, {{3}});
  EXPECT_THAT(queue_.TakeAll(), ElementsAre(first, second));
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.sequences(), 0u);
}

}  // namespace
}  // namespace dimmer
