#include "engine/front_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <optional>

namespace dimmer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using TimePoint = std::chrono::steady_clock::time_point;

// A pool of one thread, busy until the test lets it go.
class FrontPoolTest : public testing::Test {
 protected:
  FrontPoolTest() {
    EXPECT_TRUE(pool_
                    ->Add(1,
                          [this](bool) {
                            started_.set_value();
                            released_.get_future().wait();
                          })
                    .ok());
    started_.get_future().wait();
  }
  void Release() {
    if (!std::exchange(is_released_, true)) released_.set_value();
  }
  ~FrontPoolTest() override { Release(); }

  std::promise<void> started_, released_;
  bool is_released_ = false;
  std::optional<FrontPool> pool_{std::in_place, 1, 3};
};

TEST_F(FrontPoolTest, RunsInOrderButPostedTasksFirst) {
  std::vector<int> order;
  ASSERT_TRUE(pool_->Add(1, [&](bool closing) { order.push_back(closing ? -1 : 1); }).ok());
  ASSERT_TRUE(pool_->Add(1, [&](bool closing) { order.push_back(closing ? -1 : 2); }).ok());
  pool_->Post([&] { order.push_back(3); });
  Release();
  EXPECT_TRUE(pool_->Drain(TimePoint::max()));
  EXPECT_THAT(order, ElementsAre(3, 1, 2));
}

TEST_F(FrontPoolTest, RefusesWhatDoesNotFit) {
  const auto ignore = [](bool) {};
  EXPECT_TRUE(pool_->Add(2, ignore).ok());
  const absl::Status full = pool_->Add(2, ignore);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()),
              HasSubstr("Exceeds maximum queue size: 2 sequences wait to be tokenized and the call "
                        "has 2, the queue takes 3"));
  const absl::Status large = pool_->Add(4, ignore);
  EXPECT_EQ(large.code(), absl::StatusCode::kInvalidArgument) << "to try again is no use";
  EXPECT_THAT(std::string(large.message()), HasSubstr("the call has 4 sequences"));
  EXPECT_TRUE(pool_->Add(1, ignore).ok());
  Release();
  EXPECT_TRUE(pool_->Drain(TimePoint::max()));
  EXPECT_EQ(pool_->Add(1, ignore).code(), absl::StatusCode::kUnavailable);
}

TEST_F(FrontPoolTest, DrainGivesUpAtItsDeadline) {
  EXPECT_FALSE(pool_->Drain(std::chrono::steady_clock::now()));
  Release();
  EXPECT_TRUE(pool_->Drain(TimePoint::max()));
}

TEST_F(FrontPoolTest, DestructionRunsWhatWaits) {
  std::atomic<int> closing_runs = 0, posted = 0;
  ASSERT_TRUE(pool_->Add(3, [&](bool closing) { closing_runs += closing ? 1 : 100; }).ok());
  pool_->Post([&] { ++posted; });
  // Reset from a thread of its own: it waits for the held task, but has closed the pool by the time
  // that Add refuses.
  auto destroyed = std::async(std::launch::async, [&] { pool_.reset(); });
  while (pool_->Add(0, [](bool) {}).ok()) std::this_thread::yield();
  Release();
  destroyed.wait();
  EXPECT_EQ(closing_runs, 1);
  EXPECT_EQ(posted, 1);
}

TEST_F(FrontPoolTest, DropsATaskBeforeItSaysThatItIsDone) {
  auto held = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = held;
  ASSERT_TRUE(pool_->Add(1, [held = std::move(held)](bool) {}).ok());
  Release();
  EXPECT_TRUE(pool_->Drain(TimePoint::max()));
  EXPECT_TRUE(watch.expired());
}

}  // namespace
}  // namespace dimmer
