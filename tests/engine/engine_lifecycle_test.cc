// Cancellation, deadlines, admission, draining and destruction of an engine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "engine/engine.h"
#include "tests/engine/engine_fixture.h"

namespace dimmer {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// The worker is held at the end of a first request; what follows waits in the scheduler.
class HeldEngineTest : public EngineTest {
 protected:
  void Hold(uint32_t max_queue_size = 1024) {
    Start({.threads = 1, .workers = 1, .max_queue_size = max_queue_size}, /*held=*/true);
    Load(Converted(), "m");
    holder_ = Submit(*engine_, Text());
    observer_.turnstile.AwaitArrivals(1);
  }
  void AwaitQueued(uint64_t count) {
    while (engine_->load("m").queued < count) std::this_thread::yield();
  }
  static Request Text() { return {.model = "m", .texts = {"a b"}}; }

  Pending holder_;
};

TEST_F(HeldEngineTest, CancelAnswersAWaitingRequestAtOnce) {
  Hold();
  Pending waiting = Submit(*engine_, Text());
  AwaitQueued(1);
  waiting.ticket.Cancel();
  EXPECT_EQ(waiting.Await().status.code(), StatusCode::kCancelled);
  waiting.ticket.Cancel();
  holder_.ticket.Cancel();  // computed already: answered with its result
  observer_.turnstile.Open();
  EXPECT_TRUE(holder_.Await().status.ok());
}

TEST_F(HeldEngineTest, CancelRightAfterSubmitIsAnsweredOnce) {
  Hold();
  for (int i = 0; i < 200; ++i) {
    Pending pending = Submit(*engine_, Text());
    pending.ticket.Cancel();
    EXPECT_EQ(pending.Await().status.code(), StatusCode::kCancelled);
  }
}

TEST_F(HeldEngineTest, CancelIsSafeAtAnyTime) {
  Engine::Ticket().Cancel();
  Hold();
  observer_.turnstile.Open();
  Pending late = Submit(*engine_, Text());
  EXPECT_TRUE(late.Await().status.ok());
  late.ticket.Cancel();
  engine_ = nullptr;
  late.ticket.Cancel();
  holder_.ticket.Cancel();
}

TEST_F(HeldEngineTest, DeadlinesPassInTheQueue) {
  Hold();
  Request request = Text();
  request.deadline = Clock::now() + milliseconds(20);
  const Response response = Submit(*engine_, request).Await();  // the worker is still held
  EXPECT_EQ(response.status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(response.status.message(), "Request timeout expired");
  request.deadline = Clock::now() - milliseconds(1);
  EXPECT_EQ(Submit(*engine_, request).Await().status.code(), StatusCode::kDeadlineExceeded);
}

TEST_F(HeldEngineTest, AFullQueueRefusesOnAnEngineThread) {
  Hold(2);
  Pending waiting = Submit(*engine_, {.model = "m", .texts = {"a", "b"}});
  AwaitQueued(2);
  std::promise<std::pair<absl::Status, std::thread::id>> refused;
  engine_->Submit(Text(), [&](const Response& response) {
    refused.set_value({response.status, std::this_thread::get_id()});
  });
  const auto [status, thread] = refused.get_future().get();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("Exceeds maximum queue size"));
  EXPECT_NE(thread, std::this_thread::get_id());
  const Response large = Submit(*engine_, {.model = "m", .texts = {"a", "b", "c"}}).Await();
  EXPECT_EQ(large.status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(large.status.message()), HasSubstr("the call has 3 sequences"));
  observer_.turnstile.Open();
  EXPECT_TRUE(waiting.Await().status.ok());
}

// Two refusals whose callbacks block occupy both front threads.
class HeldFrontTest : public HeldEngineTest {
 protected:
  void HoldFront() {
    for (int i = 0; i < 2; ++i) {
      engine_->Submit({.model = "unknown", .texts = {"a"}},
                      [this](const Response&) { front_.Pass(); });
    }
    front_.AwaitArrivals(2);
  }
  void TearDown() override {
    front_.Open();
    HeldEngineTest::TearDown();
  }
  Turnstile front_;
};

TEST_F(HeldFrontTest, WhatWaitsForATokenizerIsBoundedToo) {
  Hold(2);
  HoldFront();
  Pending waiting = Submit(*engine_, Text()), cancelled = Submit(*engine_, Text()),
          refused = Submit(*engine_, Text());
  cancelled.ticket.Cancel();
  front_.Open();
  const Response full = refused.Await();
  EXPECT_EQ(full.status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.status.message()), HasSubstr("wait to be tokenized"));
  EXPECT_EQ(cancelled.Await().status.code(), StatusCode::kCancelled);
  observer_.turnstile.Open();
  EXPECT_TRUE(waiting.Await().status.ok());
}

TEST_F(HeldFrontTest, ATextThatIsTooLongDoesNotWaitForATokenizer) {
  Hold(1);
  HoldFront();
  Pending large = Submit(*engine_, {.model = "m", .texts = {std::string((1 << 20) + 1, 'a')}});
  Pending small = Submit(*engine_, Text());  // the queue of one is still empty
  front_.Open();
  const Response refused = large.Await();
  EXPECT_EQ(refused.status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused.status.message(), "texts[0] has 1048577 bytes, at most 1048576 are taken");
  observer_.turnstile.Open();
  EXPECT_TRUE(small.Await().status.ok());
}

TEST_F(HeldFrontTest, DestructionAnswersWhatWaitsForATokenizer) {
  Hold();
  HoldFront();
  Pending waiting = Submit(*engine_, Text());
  auto destroyed = std::async(std::launch::async, [&] { engine_.reset(); });
  observer_.turnstile.Open();
  front_.Open();
  destroyed.wait();
  // Either it came through before the destructor closed the front, or it was refused.
  const StatusCode code = waiting.Await().status.code();
  EXPECT_TRUE(code == StatusCode::kUnavailable || code == StatusCode::kOk);
  EXPECT_TRUE(holder_.Await().status.ok());
}

TEST_F(HeldEngineTest, DrainRefusesAndWaits) {
  Hold();
  Pending waiting = Submit(*engine_, Text());
  AwaitQueued(1);
  EXPECT_FALSE(engine_->Drain(Clock::now()));
  EXPECT_EQ(Submit(*engine_, Text()).Await().status.code(), StatusCode::kUnavailable);
  observer_.turnstile.Open();
  EXPECT_TRUE(engine_->Drain(Clock::time_point::max()));
  EXPECT_TRUE(waiting.Await().status.ok());
  EXPECT_EQ(engine_->load("m").queued + engine_->load("m").running, 0u);
}

TEST_F(HeldEngineTest, DestructionAnswersWhatIsQueued) {
  Hold();
  Pending waiting = Submit(*engine_, Text());
  AwaitQueued(1);
  auto destroyed = std::async(std::launch::async, [&] { engine_.reset(); });
  EXPECT_EQ(waiting.Await().status.code(), StatusCode::kUnavailable);
  observer_.turnstile.Open();
  destroyed.wait();
  EXPECT_TRUE(holder_.Await().status.ok());
}

TEST_F(EngineTest, ManyThreadsSubmitCancelReloadAndDim) {
  Start({.threads = 2, .workers = 2, .max_queue_size = 64});
  Load(Converted(), "a");
  Load(Converted(), "b");
  const RepositoryEntry next = Write(Converted(), "b", "2");
  std::atomic<int> submitted = 0, answered = 0, unexpected = 0, ok = 0;
  const auto client = [&](uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<Engine::Ticket> tickets;
    for (int i = 0; i < 150; ++i) {
      Request request{.model = random() % 2 == 0 ? "a" : "b",
                      .texts = {1 + random() % 4, "a b c word57"}};
      if (random() % 2 == 0) request.budget = {Budget::Kind::kTau, double(random() % 10) / 10};
      if (random() % 4 == 0) {
        request.deadline = Clock::now() + std::chrono::microseconds(random() % 3000);
      }
      ++submitted;
      tickets.push_back(engine_->Submit(std::move(request), [&](const Response& response) {
        ++answered;
        ok += response.status.ok();
        const StatusCode code = response.status.code();
        unexpected += code != StatusCode::kOk && code != StatusCode::kCancelled &&
                      code != StatusCode::kDeadlineExceeded &&
                      code != StatusCode::kResourceExhausted;
      }));
      if (random() % 3 == 0) tickets[random() % tickets.size()].Cancel();
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 3; ++i) threads.emplace_back(client, i);
  threads.emplace_back([&] {
    for (int i = 0; i < 5; ++i) {
      EXPECT_TRUE(engine_->Load(next).ok());
      EXPECT_TRUE(engine_->SetTau("b", {.default_tau = 0.1 * i}).ok());
      EXPECT_EQ(engine_->Models().size(), 2u);
    }
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(engine_->Drain(Clock::time_point::max()));
  EXPECT_EQ(answered, submitted);
  EXPECT_EQ(unexpected, 0);
  EXPECT_GT(ok, 0);
}

}  // namespace
}  // namespace dimmer
