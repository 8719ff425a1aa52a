#include "engine/scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <new>
#include <optional>
#include <system_error>
#include <utility>

#include "tests/scheduler/fake_model.h"
#include "tests/util/thread_limit.h"

namespace dimmer {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

class Recorder : public SchedulerObserver {
 public:
  void OnStep(const std::string& model, const std::string& version, const StepStats& stats,
              std::chrono::nanoseconds compute) override {
    std::lock_guard lock(mutex);
    EXPECT_EQ(version, "1");
    EXPECT_GE(compute.count(), 0);
    ASSERT_EQ(stats.modules.size(), 1u);
    EXPECT_EQ(stats.modules[0].expert_tokens.size(), 4u);
    ASSERT_EQ(stats.modules[0].experts_per_token.size(), 5u);
    EXPECT_EQ(stats.modules[0].experts_per_token[4], stats.tokens);
    steps.emplace_back(model, stats.tokens);
  }
  std::mutex mutex;
  std::vector<std::pair<std::string, uint64_t>> steps;
};

// One worker, held in the first step of a call of its own until the test opens the turnstile: what
// is submitted meanwhile waits.
class HeldSchedulerTest : public testing::Test {
 protected:
  void Start(SchedulerOptions options = {.workers = 1}) {
    scheduler_.emplace(options, nullptr);
    Submit(holder_);
    turnstile_.AwaitArrivals(1);
  }
  void Submit(const FakeCall& call) {
    const absl::Status status = scheduler_->Submit(call.call);
    ASSERT_TRUE(status.ok()) << status;
  }
  void TearDown() override { turnstile_.Open(); }

  Turnstile turnstile_;
  FakeServed a_{"a", {.max_batch_tokens = 100, .max_batch_size = 4}, &turnstile_};
  FakeServed b_{"b", {.max_batch_tokens = 100, .max_batch_size = 4}, &turnstile_};
  FakeCall holder_{a_, {{1000}}};
  std::optional<Scheduler> scheduler_;
};

TEST(SchedulerTest, AnswersACallWithTimes) {
  Recorder recorder;
  FakeServed model("a");
  Scheduler scheduler({.workers = 2, .threads_per_worker = 2}, &recorder);
  std::optional<Clock::time_point> entered;
  model.model->on_step = [&](auto) { entered = Clock::now(); };
  const FakeCall call(model, {{1, 1, 3}, {2, 1, 4}});
  const Clock::time_point before = Clock::now();
  ASSERT_TRUE(scheduler.Submit(call.call).ok());
  EXPECT_THAT(call.AwaitCodes(), ElementsAre(StatusCode::kOk, StatusCode::kOk));
  const auto elapsed = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - before);
  EXPECT_TRUE(call.all_finished());
  EXPECT_GE(call.call->enqueued, before);
  for (const Sequence& sequence : call.call->sequences) {
    EXPECT_THAT(sequence.logits, ElementsAre(float(sequence.ids[0])));
    EXPECT_LE(int64_t(sequence.usage.queue_us + sequence.usage.compute_us), elapsed.count() + 1);
  }
  EXPECT_THAT(recorder.steps, ElementsAre(std::pair(std::string("a"), 7u)));
  EXPECT_TRUE(scheduler.Drain(Clock::time_point::max()));
  EXPECT_EQ(call.answers(), 1);
  EXPECT_EQ(scheduler.load().queued + scheduler.load().running, 0u);
}

TEST(SchedulerTest, RefusesACallWithoutSequences) {
  FakeServed model("a");
  Scheduler scheduler({}, nullptr);
  const FakeCall call(model, {});
  EXPECT_EQ(scheduler.Submit(call.call).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(call.answers(), 0);
}

TEST_F(HeldSchedulerTest, WaitingCallsOfAModelShareABatch) {
  Start();
  const FakeCall one(a_, {{1}, {2}}), other(b_, {{3}}), two(a_, {{4}});
  Submit(one);
  Submit(other);
  Submit(two);
  EXPECT_EQ(scheduler_->load("a").queued, 3u);
  EXPECT_EQ(scheduler_->load("a").running, 1u);
  EXPECT_EQ(scheduler_->load("b").queued, 1u);
  EXPECT_EQ(scheduler_->load().queued, 4u);
  EXPECT_EQ(scheduler_->load("unknown").queued, 0u);
  turnstile_.Open();
  for (const FakeCall* call : {&one, &other, &two}) {
    EXPECT_THAT(call->AwaitCodes(), Each(StatusCode::kOk));
  }
  EXPECT_THAT(a_.model->steps(), ElementsAre(ElementsAre(1000), ElementsAre(1, 2, 4)));
  EXPECT_THAT(b_.model->steps(), ElementsAre(ElementsAre(3)));
}

TEST_F(HeldSchedulerTest, ACallLargerThanABatchTakesSeveralSteps) {
  Start();
  const FakeCall call(a_, {{1}, {2}, {3}, {4}, {5}, {6, 1, 99}, {7, 1, 300}});
  Submit(call);
  turnstile_.Open();
  EXPECT_THAT(call.AwaitCodes(), Each(StatusCode::kOk));
  EXPECT_EQ(call.answers(), 1);
  EXPECT_THAT(a_.model->steps(), ElementsAre(ElementsAre(1000), ElementsAre(1, 2, 3, 4),
                                             ElementsAre(5), ElementsAre(6), ElementsAre(7)));
}

TEST_F(HeldSchedulerTest, SequencesJoinAndLeaveBetweenSteps) {
  Start();
  const FakeCall lone(a_, {{1, 3}, {2, 1}});
  Submit(lone);
  turnstile_.LetThrough(1);
  turnstile_.AwaitArrivals(2);  // lone's first step
  const FakeCall joins(a_, {{3, 2}});
  Submit(joins);
  turnstile_.LetThrough(1);
  turnstile_.AwaitArrivals(3);
  EXPECT_EQ(scheduler_->load("a").running, 2u);
  turnstile_.Open();
  EXPECT_THAT(lone.AwaitCodes(), Each(StatusCode::kOk));
  EXPECT_THAT(joins.AwaitCodes(), Each(StatusCode::kOk));
  EXPECT_THAT(a_.model->steps(), ElementsAre(ElementsAre(1000), ElementsAre(1, 2),
                                             ElementsAre(1, 3), ElementsAre(1, 3)));
  EXPECT_EQ(lone.call->sequences[0].logits.size(), 3u);
}

TEST_F(HeldSchedulerTest, BatchesOfSeveralModelsTakeTurns) {
  std::vector<std::pair<char, size_t>> order;  // by the one worker
  a_.model->on_step = [&](auto batch) { order.emplace_back('a', batch.size()); };
  b_.model->on_step = [&](auto batch) { order.emplace_back('b', batch.size()); };
  FakeServed c("c", {}, &turnstile_);
  c.model->on_step = [&](auto batch) { order.emplace_back('c', batch.size()); };
  holder_.call->sequences[0].ids[1] = 5;  // steps
  Start();
  const FakeCall early(a_, {{1}}), other(b_, {{2, 2}}), joiner(a_, {{3}}), last(c, {{4}});
  for (const FakeCall* call : {&early, &other, &joiner, &last}) Submit(*call);
  turnstile_.Open();
  for (const FakeCall* call :
       std::vector<const FakeCall*>{&holder_, &early, &other, &joiner, &last}) {
    EXPECT_THAT(call->AwaitCodes(), Each(StatusCode::kOk));
  }
  using Pair = std::pair<char, size_t>;
  EXPECT_THAT(order, ElementsAre(Pair('a', 1), Pair('b', 1), Pair('a', 3), Pair('c', 1),
                                 Pair('b', 1), Pair('a', 1), Pair('a', 1), Pair('a', 1)));
}

TEST_F(HeldSchedulerTest, CancelAnswersAWaitingCallAtOnce) {
  Start();
  const FakeCall call(a_, {{1}, {2}});
  Submit(call);
  scheduler_->Cancel(call.call);
  EXPECT_THAT(call.AwaitCodes(), Each(StatusCode::kCancelled));  // the worker is still held
  EXPECT_TRUE(call.all_finished());
  EXPECT_EQ(scheduler_->load().queued, 0u);
  scheduler_->Cancel(call.call);
  turnstile_.Open();
  EXPECT_TRUE(scheduler_->Drain(Clock::time_point::max()));
  scheduler_->Cancel(call.call);
  EXPECT_EQ(call.answers(), 1);
  EXPECT_EQ(a_.model->steps().size(), 1u);
}

TEST_F(HeldSchedulerTest, CancelBeforeSubmitAnswersToo) {
  Start();
  const FakeCall call(a_, {{1}});
  scheduler_->Cancel(call.call);
  Submit(call);
  EXPECT_THAT(call.AwaitCodes(), Each(StatusCode::kCancelled));
}

TEST_F(HeldSchedulerTest, CancelReachesARunningSequence) {
  Start();
  scheduler_->Cancel(holder_.call);
  EXPECT_EQ(holder_.answers(), 0);
  turnstile_.Open();
  EXPECT_THAT(holder_.AwaitCodes(), ElementsAre(StatusCode::kCancelled));
}

TEST_F(HeldSchedulerTest, CancelOfAHalfRunCallIsAnsweredOnce) {
  Start();
  const FakeCall call(a_, {{1}, {2}, {3}, {4}, {5}, {6}});
  Submit(call);
  turnstile_.LetThrough(1);
  turnstile_.AwaitArrivals(2);
  scheduler_->Cancel(call.call);
  EXPECT_EQ(scheduler_->load("a").queued, 0u);
  EXPECT_EQ(call.answers(), 0);
  turnstile_.Open();
  EXPECT_THAT(call.AwaitCodes(), Each(StatusCode::kCancelled));
  EXPECT_TRUE(scheduler_->Drain(Clock::time_point::max()));
  EXPECT_EQ(call.answers(), 1);
  EXPECT_EQ(a_.model->steps().size(), 2u);
}

TEST_F(HeldSchedulerTest, DeadlinesPassWhileAllWorkersAreBusy) {
  Start();
  // The later deadline first: the earlier one must wake the clerk again.
  const FakeCall later(a_, {{1}}, Clock::now() + milliseconds(20));
  const FakeCall sooner(b_, {{2}, {3}}, Clock::now() + milliseconds(5));
  const FakeCall never(b_, {{4}});
  Submit(never);
  Submit(later);
  Submit(sooner);
  for (const FakeCall* call : {&sooner, &later}) {
    for (const absl::Status& status : call->Await()) {
      EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
      EXPECT_EQ(status.message(), "Request timeout expired");
    }
    EXPECT_GE(Clock::now(), call->call->deadline);
  }
  EXPECT_GE(later.call->sequences[0].usage.queue_us, 1u);
  EXPECT_EQ(never.answers(), 0);
  EXPECT_EQ(scheduler_->load().queued, 1u);
  turnstile_.Open();
  EXPECT_THAT(never.AwaitCodes(), Each(StatusCode::kOk));
  EXPECT_THAT(b_.model->steps(), ElementsAre(ElementsAre(4)));
}

TEST_F(HeldSchedulerTest, ADeadlineInThePastIsAnsweredLikeAnyOther) {
  Start();
  const FakeCall call(a_, {{1}}, Clock::now() - milliseconds(1));
  Submit(call);
  EXPECT_THAT(call.AwaitCodes(), ElementsAre(StatusCode::kDeadlineExceeded));
}

TEST_F(HeldSchedulerTest, OneSequencesFailureIsItsOwn) {
  a_.model->on_step = [](std::span<Sequence* const> batch) {
    for (Sequence* sequence : batch) {
      if (sequence->ids[0] != 2) continue;
      sequence->status = absl::InternalError("broken");
      sequence->finished = true;
    }
  };
  Start();
  const FakeCall mixed(a_, {{1}, {2}}), other(a_, {{3}});
  Submit(mixed);
  Submit(other);
  turnstile_.Open();
  EXPECT_THAT(mixed.AwaitCodes(), ElementsAre(StatusCode::kOk, StatusCode::kInternal));
  EXPECT_THAT(other.AwaitCodes(), ElementsAre(StatusCode::kOk));
}

TEST_F(HeldSchedulerTest, AnExceptionFailsTheBatchAndTheWorkerLivesOn) {
  a_.model->on_step = [](std::span<Sequence* const> batch) {
    if (batch[0]->ids[0] == 1) throw std::bad_alloc();
    if (batch[0]->ids[0] == 2) throw 42;
  };
  Start();
  const FakeCall first(a_, {{1}, {10}, {11}, {12}}), second(a_, {{2}, {20}, {21}, {22}}),
      third(a_, {{3}});
  for (const FakeCall* call : {&first, &second, &third}) Submit(*call);
  turnstile_.Open();
  EXPECT_THAT(first.AwaitCodes(), Each(StatusCode::kInternal));
  EXPECT_THAT(std::string(first.Await()[0].message()),
              HasSubstr("model a: the forward pass failed"));
  EXPECT_THAT(second.AwaitCodes(), Each(StatusCode::kInternal));
  EXPECT_THAT(third.AwaitCodes(), ElementsAre(StatusCode::kOk));
}

TEST_F(HeldSchedulerTest, AFullQueueRefusesWholeCalls) {
  Start({.workers = 1, .max_queue_size = 3});
  const FakeCall fits(a_, {{1}, {2}}), refused(b_, {{3}, {4}}), small(b_, {{5}}),
      huge(a_, {{6}, {7}, {8}, {9}});
  Submit(fits);
  const absl::Status full = scheduler_->Submit(refused.call);
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("Exceeds maximum queue size"));
  EXPECT_EQ(scheduler_->Submit(huge.call).code(), StatusCode::kInvalidArgument);
  Submit(small);
  turnstile_.Open();
  EXPECT_THAT(fits.AwaitCodes(), Each(StatusCode::kOk));
  EXPECT_THAT(small.AwaitCodes(), Each(StatusCode::kOk));
  EXPECT_TRUE(scheduler_->Drain(Clock::time_point::max()));
  EXPECT_EQ(refused.answers() + huge.answers(), 0);
}

TEST_F(HeldSchedulerTest, DrainRefusesNewCallsAndWaitsForTheOthers) {
  Start();
  const FakeCall waiting(b_, {{1}}), refused(a_, {{2}});
  Submit(waiting);
  EXPECT_FALSE(scheduler_->Drain(Clock::now()));
  const absl::Status status = scheduler_->Submit(refused.call);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  turnstile_.Open();
  EXPECT_TRUE(scheduler_->Drain(Clock::time_point::max()));
  EXPECT_EQ(holder_.answers(), 1);
  EXPECT_EQ(waiting.answers(), 1);
  EXPECT_THAT(waiting.AwaitCodes(), Each(StatusCode::kOk));
}

TEST_F(HeldSchedulerTest, DestructionAnswersEverything) {
  Start();
  const FakeCall half(a_, {{1}, {2}, {3}, {4}, {5}}), waiting(b_, {{6}});
  Submit(half);
  Submit(waiting);
  turnstile_.LetThrough(1);
  turnstile_.AwaitArrivals(2);  // the first four of `half`
  auto destroyed = std::async(std::launch::async, [&] { scheduler_.reset(); });
  EXPECT_THAT(waiting.AwaitCodes(), ElementsAre(StatusCode::kUnavailable));
  turnstile_.Open();
  destroyed.wait();
  using enum StatusCode;
  EXPECT_THAT(half.AwaitCodes(), ElementsAre(kOk, kOk, kOk, kOk, kUnavailable));
  EXPECT_EQ(half.answers(), 1);
  EXPECT_EQ(holder_.answers(), 1);
}

TEST_F(HeldSchedulerTest, TwoWorkersRunTwoBatchesAtATime) {
  Start({.workers = 2});
  const FakeCall call(b_, {{1}});
  Submit(call);
  turnstile_.AwaitArrivals(2);  // while the first is still held
  EXPECT_EQ(scheduler_->load().running, 2u);
  turnstile_.Open();
  EXPECT_THAT(call.AwaitCodes(), Each(StatusCode::kOk));
}

TEST_F(HeldSchedulerTest, ALargeCallWakesSeveralWorkers) {
  Start({.workers = 3});
  const FakeCall call(a_, {{1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}});
  Submit(call);
  turnstile_.AwaitArrivals(3);
  EXPECT_EQ(scheduler_->load("a").running, 9u);
}

TEST_F(HeldSchedulerTest, CallbacksMaySubmitAndCancel) {
  Start();
  const FakeCall next(a_, {{2}}), victim(b_, {{3}});
  FakeCall first(a_, {{1}});
  Submit(victim);
  std::promise<absl::Status> submitted;
  first.call->done = [&](Call&) {
    scheduler_->Cancel(victim.call);
    submitted.set_value(scheduler_->Submit(next.call));
  };
  Submit(first);
  scheduler_->Cancel(first.call);  // the callback runs while the worker is held
  EXPECT_TRUE(submitted.get_future().get().ok());
  EXPECT_THAT(victim.AwaitCodes(), Each(StatusCode::kCancelled));
  turnstile_.Open();
  EXPECT_THAT(next.AwaitCodes(), Each(StatusCode::kOk));
}

TEST_F(HeldSchedulerTest, AnAnsweredCallIsForgotten) {
  Start();
  auto call = std::make_unique<FakeCall>(a_, std::vector<FakeSequence>{{1}});
  // A callback that holds its own call must not keep it alive once it has run.
  std::promise<void> answered;
  call->call->done = [&, self = call->call](Call&) { answered.set_value(); };
  const std::weak_ptr<Call> watch = call->call;
  Submit(*call);
  call.reset();
  turnstile_.Open();
  answered.get_future().wait();
  EXPECT_TRUE(scheduler_->Drain(Clock::time_point::max()));
  scheduler_.reset();
  EXPECT_TRUE(watch.expired());
}

TEST_F(HeldSchedulerTest, ACallbackThatThrowsHarmsNoOther) {
  Start();
  FakeCall thrower(a_, {{1}}), next(a_, {{2}}), late(a_, {{3}});
  const auto answer = std::exchange(thrower.call->done, nullptr);
  thrower.call->done = [answer](Call& call) {
    answer(call);
    throw std::bad_alloc();
  };
  late.call->done = [](Call&) { throw std::bad_alloc(); };  // answered by the clerk
  Submit(thrower);
  Submit(next);
  Submit(late);
  scheduler_->Cancel(late.call);
  turnstile_.Open();
  thrower.Await();
  EXPECT_THAT(next.AwaitCodes(), Each(StatusCode::kOk));
  EXPECT_TRUE(scheduler_->Drain(Clock::time_point::max()));
}

TEST(SchedulerTest, AnObserverThatThrowsHarmsNoCall) {
  class Thrower : public SchedulerObserver {
    void OnStep(const std::string&, const std::string&, const StepStats&,
                std::chrono::nanoseconds) override {
      throw std::bad_alloc();
    }
  };
  Thrower observer;
  const FakeServed model("m");
  Scheduler scheduler({.workers = 1}, &observer);
  for (int i = 0; i < 3; ++i) {
    const FakeCall call(model, {{i}});
    ASSERT_TRUE(scheduler.Submit(call.call).ok());
    EXPECT_THAT(call.AwaitCodes(), Each(StatusCode::kOk));
  }
}

TEST(SchedulerTest, WithoutThreadsItSaysSo) {
  const FakeServed model("m");
  const SchedulerOptions options{.workers = 2, .threads_per_worker = 3};
  for (int room = 0; room < 7; ++room) {  // 2 pools of 2 more threads each, 2 workers, the clerk
    const ThreadLimit limit(room);
    EXPECT_THROW(Scheduler(options, nullptr), std::system_error) << room;
  }
  Scheduler scheduler(options, nullptr);
  const FakeCall call(model, {{1}});
  ASSERT_TRUE(scheduler.Submit(call.call).ok());
  EXPECT_THAT(call.AwaitCodes(), Each(StatusCode::kOk));
}

}  // namespace
}  // namespace dimmer
