// Generations in the scheduler: pages, pauses, turns and endings.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <random>
#include <thread>

#include "engine/scheduler/scheduler.h"
#include "tests/scheduler/fake_decoder.h"

namespace dimmer {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kEndless = 100000;

class GenerationTest : public testing::Test {
 protected:
  void Start(SchedulerOptions options = {.workers = 1}) { scheduler_.emplace(options, nullptr); }
  void Submit(const FakeStream& stream) {
    const absl::Status status = scheduler_->Submit(stream.call);
    ASSERT_TRUE(status.ok()) << status;
  }
  void Resume(const FakeStream& stream) {
    stream.sink->Resume();
    scheduler_->Wake();
  }
  size_t free_pages() const { return served_->kv->free_pages(); }
  void TearDown() override { turnstile_.Open(); }

  Turnstile turnstile_;
  std::shared_ptr<FakeDecoder> decoder_ = std::make_shared<FakeDecoder>();
  std::shared_ptr<ServedModel> served_ = ServeDecoder(decoder_, 20000);
  std::optional<Scheduler> scheduler_;
};

// What a stream gets when nothing else runs.
struct Outcome {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  uint64_t flops = 0;
  bool operator==(const Outcome&) const = default;
};

Outcome OutcomeOf(const FakeStream& stream) {
  return {stream.sink->tokens(), stream.sink->logprobs(), stream.usage().flops};
}

Outcome Alone(FakePrompt prompt) {
  prompt.room = 0;
  Scheduler scheduler({.workers = 1}, nullptr);
  const FakeStream stream(ServeDecoder(std::make_shared<FakeDecoder>(), 1000), prompt);
  EXPECT_TRUE(scheduler.Submit(stream.call).ok());
  EXPECT_TRUE(stream.Await().ok());
  return OutcomeOf(stream);
}

TEST_F(GenerationTest, StreamsTokensAndGivesThePagesBack) {
  Start();
  const FakeStream stream(served_, {.tokens = 100, .max_new_tokens = 30});
  Submit(stream);
  EXPECT_TRUE(stream.Await().ok());
  EXPECT_EQ(stream.reason(), FinishReason::kLength);
  EXPECT_EQ(stream.sink->tokens().size(), 30u);
  EXPECT_EQ(free_pages(), 20000u);
  EXPECT_EQ(decoder_->steps(), 31u);  // two chunks, then token by token
  EXPECT_TRUE(scheduler_->Drain(Clock::time_point::max()));
  EXPECT_EQ(scheduler_->load().running + scheduler_->load().queued, 0u);
}

TEST_F(GenerationTest, MorePagesThanThePoolHasAreRefusedWithNumbers) {
  served_ = ServeDecoder(decoder_, 10);
  Start();
  const FakeStream large(served_, {.tokens = 100, .max_new_tokens = 62});
  const absl::Status status = scheduler_->Submit(large.call);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the keys and values of 161 tokens need 11 "
                                                       "pages, the model's cache has 10"));
  const FakeStream fits(served_, {.tokens = 100, .max_new_tokens = 61});
  Submit(fits);
  EXPECT_TRUE(fits.Await().ok());
}

TEST_F(GenerationTest, WhatDoesNotFitNowWaitsItsTurn) {
  served_ = ServeDecoder(decoder_, 10);
  decoder_->turnstile = &turnstile_;
  Start();
  const FakeStream first(served_, {.tokens = 33, .max_new_tokens = 31});   // 4 pages
  const FakeStream second(served_, {.tokens = 33, .max_new_tokens = 79});  // 7 pages
  const FakeStream third(served_, {.tokens = 3, .max_new_tokens = 3});     // 1, but it is behind
  for (const FakeStream* stream : {&first, &second, &third}) Submit(*stream);
  turnstile_.AwaitArrivals(1);
  EXPECT_EQ(free_pages(), 6u);
  EXPECT_EQ(scheduler_->load().running, 1u);
  EXPECT_EQ(scheduler_->load().queued, 2u);
  turnstile_.LetThrough(31);
  turnstile_.AwaitArrivals(32);  // the step after the first one's last
  EXPECT_TRUE(first.answered());
  EXPECT_EQ(scheduler_->load().running, 2u);
  EXPECT_EQ(free_pages(), 2u);
  turnstile_.Open();
  EXPECT_TRUE(second.Await().ok());
  EXPECT_TRUE(third.Await().ok());
  EXPECT_EQ(free_pages(), 10u);
}

TEST_F(GenerationTest, CancellationFreesPagesWithinAStep) {
  decoder_->turnstile = &turnstile_;
  Start();
  const FakeStream stays(served_, {.tokens = 10, .max_new_tokens = kEndless}),
      goes(served_, {.tokens = 10, .max_new_tokens = kEndless});
  Submit(stays);
  Submit(goes);
  turnstile_.LetThrough(7);
  turnstile_.AwaitArrivals(8);
  const size_t each = KvPool::PagesFor(10 + kEndless);
  EXPECT_EQ(free_pages(), 20000 - 2 * each);
  scheduler_->Cancel(goes.call);
  EXPECT_EQ(free_pages(), 20000 - 2 * each);  // the step may still use them
  turnstile_.LetThrough(1);
  turnstile_.AwaitArrivals(9);
  EXPECT_EQ(free_pages(), 20000 - each);
  EXPECT_EQ(goes.Await().code(), StatusCode::kCancelled);
  EXPECT_EQ(scheduler_->load().running, 1u);
  scheduler_->Cancel(stays.call);
  turnstile_.Open();
  EXPECT_EQ(stays.Await().code(), StatusCode::kCancelled);
  EXPECT_EQ(free_pages(), 20000u);
}

TEST_F(GenerationTest, ASlowReaderStallsOnlyItself) {
  Start();
  const FakePrompt prompt{.first = 3, .max_new_tokens = 25, .room = 10};
  const FakeStream slow(served_, prompt), fast(served_, {.first = 4, .max_new_tokens = 200});
  Submit(slow);
  Submit(fast);
  EXPECT_TRUE(fast.Await().ok());
  EXPECT_EQ(slow.sink->tokens().size(), 10u);
  EXPECT_FALSE(slow.answered());
  // With the slow one alone the worker sleeps, and is there for others.
  const size_t steps = decoder_->steps();
  const FakeStream next(served_, {.first = 5, .max_new_tokens = 6});
  Submit(next);
  EXPECT_TRUE(next.Await().ok());
  EXPECT_EQ(decoder_->steps(), steps + 6);
  scheduler_->Wake();  // it is not ready yet
  EXPECT_EQ(slow.sink->tokens().size(), 10u);
  Resume(slow);
  slow.sink->AwaitTokens(20);
  Resume(slow);
  EXPECT_TRUE(slow.Await().ok());
  EXPECT_EQ(slow.sink->tokens(), Alone(prompt).tokens);
  EXPECT_EQ(decoder_->steps(), steps + 6 + 15);
}

// Readers that never come back: they hold pages, not places in the batch.
TEST_F(GenerationTest, StalledReadersLeaveTheirPlacesToOthers) {
  served_ = ServeDecoder(decoder_, 20000, {.max_batch_size = 2});
  Start();
  std::vector<std::unique_ptr<FakeStream>> stalled;
  for (int32_t i = 0; i < 5; ++i) {
    stalled.push_back(std::make_unique<FakeStream>(
        served_, FakePrompt{.first = i, .max_new_tokens = 40, .room = 3}));
    Submit(*stalled.back());
  }
  for (const auto& stream : stalled) stream->sink->AwaitTokens(3);
  const FakeStream next(served_, {.first = 9, .max_new_tokens = 200});
  Submit(next);
  EXPECT_TRUE(next.Await().ok());
  // When all of them come back, more are ready than the batch has places: they take turns.
  std::atomic<bool> over = false;
  std::thread reader([&] {
    while (!over) {
      for (const auto& stream : stalled) Resume(*stream);
    }
  });
  for (int32_t i = 0; i < 5; ++i) {
    EXPECT_TRUE(stalled[i]->Await().ok());
    EXPECT_EQ(OutcomeOf(*stalled[i]), Alone({.first = i, .max_new_tokens = 40}));
  }
  over = true;
  reader.join();
  EXPECT_EQ(decoder_->most_at_once(), 2u);
  EXPECT_EQ(free_pages(), 20000u);
}

TEST_F(GenerationTest, AReaderThatIsAwayTooLongIsGivenUp) {
  Start({.workers = 1, .reader_timeout = milliseconds(30)});
  const FakeStream away(served_, {.max_new_tokens = kEndless, .room = 2});
  Submit(away);
  const absl::Status status = away.Await();
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("was not read for 0.03 s"));
  EXPECT_EQ(away.sink->tokens().size(), 2u);
  EXPECT_EQ(free_pages(), 20000u);
  // What it used until then is in its usage.
  EXPECT_EQ(away.usage().prompt_tokens, 5u);
  EXPECT_EQ(away.usage().output_tokens, 2u);
  EXPECT_EQ(away.usage().dense_flops,
            decoder_->info().cost.DenseFlops(
                GenerationSize{.prompt_tokens = 5, .max_new_tokens = 2}.All()));
}

TEST_F(GenerationTest, AReaderThatIsSlowIsNotGivenUp) {
  Start({.workers = 1, .reader_timeout = milliseconds(30)});
  const FakeStream slow(served_, {.max_new_tokens = kEndless, .room = 2}),
      away(served_, {.max_new_tokens = kEndless, .room = 2});
  slow.sink->last_read_at = Clock::now() + std::chrono::hours(1);
  Submit(slow);
  Submit(away);
  EXPECT_EQ(away.Await().code(), StatusCode::kAborted);
  EXPECT_FALSE(slow.answered());
  scheduler_->Cancel(slow.call);
  EXPECT_EQ(slow.Await().code(), StatusCode::kCancelled);
}

TEST_F(GenerationTest, APausedStreamCanBeCancelledAndBeLate) {
  Start();
  const FakeStream cancelled(served_, {.max_new_tokens = kEndless, .room = 1});
  Submit(cancelled);
  cancelled.sink->AwaitTokens(1);
  scheduler_->Cancel(cancelled.call);
  EXPECT_EQ(cancelled.Await().code(), StatusCode::kCancelled);
  const FakeStream late(served_, {.max_new_tokens = kEndless, .room = 1},
                        Clock::now() + milliseconds(30));
  Submit(late);
  EXPECT_EQ(late.Await().code(), StatusCode::kDeadlineExceeded);
  EXPECT_GE(Clock::now(), late.call->deadline);
  EXPECT_LE(late.sink->tokens().size(), 1u);
  EXPECT_EQ(free_pages(), 20000u);
}

TEST_F(GenerationTest, AnEndlessStreamDoesNotStarveAClassifier) {
  Start();
  std::vector<std::unique_ptr<FakeStream>> streams;
  for (int32_t i = 0; i < 3; ++i) {
    streams.push_back(
        std::make_unique<FakeStream>(served_, FakePrompt{.first = i, .max_new_tokens = kEndless}));
    Submit(*streams.back());
  }
  const FakeServed classifier("classifier");
  for (int i = 0; i < 20; ++i) {
    const FakeCall call(classifier, {{i}});
    ASSERT_TRUE(scheduler_->Submit(call.call).ok());
    EXPECT_THAT(call.AwaitCodes(), ElementsAre(StatusCode::kOk));
  }
  for (const auto& stream : streams) {
    EXPECT_FALSE(stream->answered());
    scheduler_->Cancel(stream->call);
    EXPECT_EQ(stream->Await().code(), StatusCode::kCancelled);
  }
}

TEST_F(GenerationTest, DrainEndsStreamsByItsDeadline) {
  Start();
  const FakeStream runs(served_, {.max_new_tokens = kEndless}),
      sleeps(served_, {.max_new_tokens = kEndless, .room = 1}),
      ends(served_, {.max_new_tokens = 50});
  const FakeStream waits(ServeDecoder(decoder_, 20000), {.max_new_tokens = 3});
  for (const FakeStream* stream : {&runs, &sleeps, &ends}) Submit(*stream);
  sleeps.sink->AwaitTokens(1);
  EXPECT_TRUE(ends.Await().ok());
  (void)scheduler_->Drain(Clock::now() + milliseconds(20));  // true if they ended in time
  for (const FakeStream* stream : {&runs, &sleeps}) {
    const absl::Status status = stream->Await();
    EXPECT_EQ(status.code(), StatusCode::kUnavailable);
    EXPECT_EQ(status.message(), "GRPC server is shutting down");
  }
  EXPECT_EQ(scheduler_->Submit(waits.call).code(), StatusCode::kUnavailable);
  EXPECT_TRUE(scheduler_->Drain(Clock::time_point::max()));
  EXPECT_EQ(free_pages(), 20000u);
}

TEST_F(GenerationTest, DestructionEndsStreams) {
  Start({.workers = 2});
  const FakeStream runs(served_, {.max_new_tokens = kEndless}),
      sleeps(served_, {.max_new_tokens = kEndless, .room = 1});
  Submit(runs);
  Submit(sleeps);
  sleeps.sink->AwaitTokens(1);
  scheduler_.reset();
  EXPECT_EQ(runs.Await().code(), StatusCode::kUnavailable);
  EXPECT_EQ(sleeps.Await().code(), StatusCode::kUnavailable);
}

TEST_F(GenerationTest, AFreeWorkerTakesWhatABusyOneWouldJoin) {
  decoder_->turnstile = &turnstile_;
  Start({.workers = 2});
  const FakeStream one(served_, {.max_new_tokens = 3}), two(served_, {.max_new_tokens = 3});
  Submit(one);
  turnstile_.AwaitArrivals(1);
  Submit(two);
  turnstile_.AwaitArrivals(2);  // while the first is still held
  turnstile_.Open();
  EXPECT_TRUE(one.Await().ok());
  EXPECT_TRUE(two.Await().ok());
}

TEST_F(GenerationTest, MaxFlopsEndsAStream) {
  Start();
  const CostModel& cost = decoder_->info().cost;
  const GenerationSize size{.prompt_tokens = 20, .max_new_tokens = 100};
  const uint64_t max_flops = cost.DenseFlops(size.All()) / 4;
  const auto plan =
      PlanGeneration({.kind = Budget::Kind::kMaxFlops, .max_flops = max_flops}, {}, cost, size);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const FakeStream stream(served_, {.tokens = 20, .max_new_tokens = 100, .plan = *plan});
  Submit(stream);
  EXPECT_TRUE(stream.Await().ok());
  EXPECT_EQ(stream.reason(), FinishReason::kBudget);
  EXPECT_GE(stream.sink->tokens().size(), 1u);
  EXPECT_LE(stream.call->sequences[0].usage.flops, max_flops);
  EXPECT_GT(stream.call->sequences[0].usage.flops, max_flops * 9 / 10);
}

FakePrompt RandomPrompt(std::mt19937& random) {
  FakePrompt prompt{.first = int32_t(random() % 60),
                    .tokens = 1 + random() % 200,
                    .max_new_tokens = uint32_t(1 + random() % 80)};
  if (random() % 2 == 0) {
    prompt.sampling = {.temperature = 0.9f, .top_k = 30, .top_p = 0.95f, .seed = random()};
  }
  if (random() % 3 == 0) prompt.room = 1 + random() % 7;
  if (random() % 2 == 0) {
    const CostModel cost = FakeDecoder().info().cost;
    prompt.plan = *PlanGeneration(
        {.kind = Budget::Kind::kFlopFraction, .value = 0.6 + double(random() % 4) / 10}, {}, cost,
        {.prompt_tokens = prompt.tokens, .max_new_tokens = prompt.max_new_tokens});
  }
  return prompt;
}

// Random joins, cancels and slow readers, on several workers and with too few pages for all: every
// stream that lives gets the tokens and log-probabilities that it gets alone, and one that is
// cancelled a beginning of them.
TEST_F(GenerationTest, SixtyFourStreamsGetTheBitsThatTheyGetAlone) {
  for (const uint32_t workers : {1, 3}) {
    std::mt19937 random(workers);
    served_ = ServeDecoder(decoder_, 300, {.max_batch_size = 40});
    Start({.workers = workers});
    std::vector<FakePrompt> prompts;
    std::vector<std::unique_ptr<FakeStream>> streams;
    for (int i = 0; i < 64; ++i) {
      prompts.push_back(RandomPrompt(random));
      streams.push_back(std::make_unique<FakeStream>(served_, prompts.back()));
    }
    std::atomic<bool> over = false;
    std::thread reader([&] {
      std::mt19937 order(7);
      while (!over) Resume(*streams[order() % streams.size()]);
    });
    std::vector<bool> cancelled(streams.size());
    for (size_t i = 0; i < streams.size(); ++i) {
      Submit(*streams[i]);
      if (random() % 5 == 0) {
        const size_t victim = random() % (i + 1);
        cancelled[victim] = true;
        scheduler_->Cancel(streams[victim]->call);
      }
    }
    int finished = 0;
    for (size_t i = 0; i < streams.size(); ++i) {
      const absl::Status status = streams[i]->Await();
      Outcome want = Alone(prompts[i]);
      const Outcome got = OutcomeOf(*streams[i]);
      if (!cancelled[i]) {
        EXPECT_TRUE(status.ok()) << status;
      }
      if (status.ok()) ++finished;
      ASSERT_LE(got.tokens.size(), want.tokens.size());
      if (!status.ok()) {
        want.tokens.resize(got.tokens.size());
        want.logprobs.resize(got.logprobs.size());
        EXPECT_LE(got.flops, want.flops);
        want.flops = got.flops;
      }
      EXPECT_EQ(got, want) << "stream " << i;
    }
    EXPECT_GT(finished, 40);
    over = true;
    reader.join();
    EXPECT_TRUE(scheduler_->Drain(Clock::time_point::max()));
    EXPECT_EQ(free_pages(), 300u);
    EXPECT_EQ(scheduler_->load().running + scheduler_->load().queued, 0u);
  }
}

}  // namespace
}  // namespace dimmer
