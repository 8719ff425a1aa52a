// Many threads submit, cancel and time out at once: every admitted call is answered exactly once,
// with a status per sequence, and nothing is left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "engine/scheduler/scheduler.h"
#include "tests/scheduler/fake_model.h"

namespace dimmer {
namespace {

using Clock = std::chrono::steady_clock;

struct Tally {
  std::atomic<int> admitted = 0, refused = 0, answered = 0;
  std::atomic<int> ok = 0, cancelled = 0, late = 0, failed = 0, unexpected = 0;

  void Count(const Call& call) {
    ++answered;
    for (const Sequence& sequence : call.sequences) {
      if (!sequence.finished) ++unexpected;
      switch (sequence.status.code()) {
        case absl::StatusCode::kOk:
          ++ok;
          if (sequence.logits.size() != static_cast<size_t>(sequence.ids[1])) ++unexpected;
          break;
        case absl::StatusCode::kCancelled:
          ++cancelled;
          break;
        case absl::StatusCode::kDeadlineExceeded:
          ++late;
          break;
        case absl::StatusCode::kInternal:
          ++failed;
          break;
        default:
          ++unexpected;
      }
    }
  }
};

std::shared_ptr<Call> RandomCall(std::mt19937& random, const FakeServed& model, Tally& tally) {
  auto call = std::make_shared<Call>();
  call->model = model.served;
  const size_t sequences = 1 + random() % 12;
  for (size_t i = 0; i < sequences; ++i) {
    call->sequences.push_back(MakeSequence({.name = static_cast<int32_t>(random() % 500),
                                            .steps = static_cast<int32_t>(1 + random() % 4),
                                            .tokens = 2 + random() % 30}));
  }
  if (random() % 3 == 0) {
    call->deadline = Clock::now() + std::chrono::microseconds(random() % 2000);
  }
  call->done = [&tally](Call& done) { tally.Count(done); };
  return call;
}

void SubmitAndCancel(Scheduler& scheduler, const std::vector<FakeServed>& models, uint32_t seed,
                     Tally& tally) {
  std::mt19937 random(seed);
  std::vector<std::shared_ptr<Call>> calls;
  for (int i = 0; i < 400; ++i) {
    calls.push_back(RandomCall(random, models[random() % models.size()], tally));
    if (random() % 20 == 0) scheduler.Cancel(calls.back());
    ++(scheduler.Submit(calls.back()).ok() ? tally.admitted : tally.refused);
    if (random() % 4 == 0) scheduler.Cancel(calls[random() % calls.size()]);
    if (random() % 50 == 0) (void)scheduler.load();
  }
}

std::vector<FakeServed> Models() {
  std::vector<FakeServed> models;
  for (const char* name : {"a", "b", "c"}) {
    models.emplace_back(name, BatchLimits{.max_batch_tokens = 64, .max_batch_size = 8});
    models.back().model->on_step = [](std::span<Sequence* const> batch) {
      if (batch[0]->ids[0] == 13) throw std::bad_alloc();
    };
  }
  return models;
}

TEST(SchedulerStressTest, EveryAdmittedCallIsAnsweredOnce) {
  const std::vector<FakeServed> models = Models();
  Tally tally;
  Scheduler scheduler({.workers = 3, .max_queue_size = 200}, nullptr);
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] { SubmitAndCancel(scheduler, models, i, tally); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(scheduler.Drain(Clock::time_point::max()));
  EXPECT_EQ(tally.admitted + tally.refused, 1600);
  EXPECT_EQ(tally.answered, tally.admitted);
  EXPECT_EQ(tally.unexpected, 0);
  EXPECT_GT(tally.ok, 0);
  EXPECT_GT(tally.cancelled, 0);
  for (const char* name : {"a", "b", "c"}) {
    EXPECT_EQ(scheduler.load(name).queued, 0u);
    EXPECT_EQ(scheduler.load(name).running, 0u);
  }
}

TEST(SchedulerStressTest, DestructionUnderLoadAnswersEverything) {
  for (uint32_t round = 0; round < 20; ++round) {
    const std::vector<FakeServed> models = Models();
    Tally tally;
    {
      Scheduler scheduler({.workers = 2, .max_queue_size = 5000}, nullptr);
      std::mt19937 random(round);
      for (int i = 0; i < 100; ++i) {
        ++(scheduler.Submit(RandomCall(random, models[i % 3], tally)).ok() ? tally.admitted
                                                                           : tally.refused);
      }
    }
    EXPECT_EQ(tally.admitted, 100);
    EXPECT_EQ(tally.answered, 100);
  }
}

}  // namespace
}  // namespace dimmer
