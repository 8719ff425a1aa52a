#include "client_examples/cpp/retry.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

namespace dimmer_example {
namespace {

grpc::Status Full(std::optional<int> retry_ms) {
  google::rpc::Status details;
  if (retry_ms) {
    google::rpc::RetryInfo info;
    info.mutable_retry_delay()->set_nanos(*retry_ms * 1'000'000);
    details.add_details()->PackFrom(info);
  }
  return {grpc::StatusCode::RESOURCE_EXHAUSTED, "full", details.SerializeAsString()};
}

TEST(Backoff, DelayGrowsToAMaximumAndIsNeverLessThanAsked) {
  struct Case {
    int failures;
    std::optional<Seconds> asked;
    double jitter;
    double expected;
  };
  const Case cases[] = {
      {1, std::nullopt, 0.0, 0.0},
      {1, std::nullopt, 0.5, 0.05},
      {2, std::nullopt, 0.5, 0.1},
      {4, std::nullopt, 0.5, 0.4},
      // 6.4 is above the maximum, 5.
      {7, std::nullopt, 0.5, 2.5},
      {100'000, std::nullopt, 0.5, 2.5},
      {1, Seconds(0.3), 0.0, 0.3},
      {3, Seconds(0.3), 0.5, 0.5},
      // What the server asks for may be above the maximum.
      {2, Seconds(20), 0.5, 20.1},
  };
  for (const Case& c : cases) {
    EXPECT_NEAR(Backoff().Delay(c.failures, c.asked, c.jitter).count(), c.expected, 1e-12)
        << c.failures << " failures, jitter " << c.jitter;
  }
}

TEST(RetryDelay, ReadsTheDetails) {
  ASSERT_TRUE(RetryDelay(Full(250)));
  EXPECT_NEAR(RetryDelay(Full(250))->count(), 0.25, 1e-12);
  EXPECT_FALSE(RetryDelay(Full(std::nullopt)));
  EXPECT_FALSE(RetryDelay({grpc::StatusCode::RESOURCE_EXHAUSTED, "full"}));
  EXPECT_FALSE(RetryDelay({grpc::StatusCode::RESOURCE_EXHAUSTED, "full", "\xff no message"}));
}

TEST(CallWithRetry, TriesAgainWithoutRetryInfoAndKeepsTheDeadline) {
  int calls = 0;
  std::vector<std::chrono::system_clock::time_point> deadlines;
  const grpc::Status status = CallWithRetry(
      [&](grpc::ClientContext& context) {
        deadlines.push_back(context.deadline());
        return ++calls < 3 ? Full(std::nullopt) : grpc::Status::OK;
      },
      Seconds(60), Backoff{.initial = Seconds(0.001)});
  EXPECT_TRUE(status.ok());
  ASSERT_EQ(deadlines.size(), 3);
  EXPECT_EQ(deadlines[0], deadlines[1]);
  EXPECT_EQ(deadlines[0], deadlines[2]);
}

TEST(CallWithRetry, EndsWithItsAttempts) {
  int calls = 0;
  const grpc::Status status = CallWithRetry([&](grpc::ClientContext&) { return ++calls, Full(1); },
                                            Seconds(60), Backoff{.max_attempts = 3});
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "gave up after attempt 3, no attempts left: full");
}

TEST(CallWithRetry, DoesNotWaitBeyondTheDeadline) {
  int calls = 0;
  const grpc::Status status =
      CallWithRetry([&](grpc::ClientContext&) { return ++calls, Full(900); }, Seconds(0.5));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(status.error_message(),
            "gave up after attempt 1, the deadline comes before the next: full");
}

TEST(CallWithRetry, LeavesOtherErrorsAlone) {
  int calls = 0;
  const grpc::Status status = CallWithRetry(
      [&](grpc::ClientContext&) {
        ++calls;
        return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "budget.tau");
      },
      Seconds(60));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(status.error_message(), "budget.tau");
}

}  // namespace
}  // namespace dimmer_example
