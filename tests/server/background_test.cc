#include "server/background.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <new>
#include <string>
#include <vector>

namespace dimmer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

void Ignore(const absl::Status&) {}

TEST(BackgroundTest, RunsInOrder) {
  std::vector<int> order;
  {
    Background background(8);
    for (int i = 0; i < 4; ++i) {
      EXPECT_TRUE(background.Run([&order, i] { order.push_back(i); }, Ignore).ok());
    }
  }
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3));
}

TEST(BackgroundTest, ATaskThatThrowsIsAnsweredAndTheNextRuns) {
  std::promise<absl::Status> failed;
  std::promise<void> next;
  Background background(8);
  EXPECT_TRUE(background
                  .Run([] { throw std::bad_alloc(); },
                       [&](const absl::Status& status) { failed.set_value(status); })
                  .ok());
  EXPECT_TRUE(background.Run([&] { next.set_value(); }, Ignore).ok());
  const absl::Status status = failed.get_future().get();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the call failed: std::bad_alloc"));
  next.get_future().wait();
}

TEST(BackgroundTest, RefusesWhatDoesNotFit) {
  std::promise<void> started, released;  // outlive the thread that uses them
  Background background(1);
  const auto hold = [&] {
    started.set_value();
    released.get_future().wait();
  };
  EXPECT_TRUE(background.Run(hold, Ignore).ok());
  started.get_future().wait();
  EXPECT_TRUE(background.Run([] {}, Ignore).ok());
  const absl::Status full = background.Run([] {}, Ignore);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("1 calls wait of at most 1"));
  released.set_value();
}

}  // namespace
}  // namespace dimmer
