#include "engine/util/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace dimmer {
namespace {

class ThreadPoolTest : public testing::TestWithParam<size_t> {};

TEST_P(ThreadPoolTest, RunsEveryIndexOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.threads(), GetParam());
  for (size_t count : {0u, 1u, 2u, 7u, 1000u}) {
    std::vector<std::atomic<int>> calls(count);
    pool.ParallelFor(count, [&](size_t index, size_t thread) {
      EXPECT_LT(thread, pool.threads());
      ++calls[index];
    });
    for (const auto& n : calls) EXPECT_EQ(n, 1);
  }
}

TEST_P(ThreadPoolTest, WritesAreVisibleAfterwards) {
  ThreadPool pool(GetParam());
  std::vector<size_t> values(64);
  for (size_t round = 1; round <= 2000; ++round) {
    pool.ParallelFor(values.size(), [&](size_t index, size_t) { values[index] += index; });
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], i * round);
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 5));

}  // namespace
}  // namespace dimmer
