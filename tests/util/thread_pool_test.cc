#include "engine/util/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "tests/util/thread_limit.h"

namespace dimmer {
namespace {

// Waits until `threads` others of this process sleep, as workers do that have spun for a while.
void AwaitSleep(size_t threads) {
  size_t asleep = 0;
  while (asleep < threads) {
    std::this_thread::yield();
    asleep = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::ifstream file(task.path() / "stat");
      std::string stat;
      std::getline(file, stat);
      const size_t name_end = stat.rfind(") ");
      if (name_end != std::string::npos && stat.at(name_end + 2) == 'S') ++asleep;
    }
  }
}

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

TEST_P(ThreadPoolTest, RethrowsTheFirstExceptionOnceTasksHaveReturned) {
  ThreadPool pool(GetParam());
  for (size_t round = 0; round < 2000; ++round) {
    std::atomic<size_t> started = 0, returned = 0;
    const auto task = [&](size_t index, size_t) {
      ++started;
      if (index % 7 == round % 7) {
        ++returned;
        throw std::runtime_error("task " + std::to_string(index));
      }
      ++returned;
    };
    try {
      pool.ParallelFor(1000, task);
      FAIL() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(std::string(error.what()).substr(0, 5), "task ");
    }
    ASSERT_EQ(started, returned) << "a task still runs";
    ASSERT_LT(started, 1000u) << "indices were handed out after the failure";
    // The pool goes on, without the old exception.
    std::atomic<size_t> calls = 0;
    ASSERT_NO_THROW(pool.ParallelFor(10, [&](size_t, size_t) { ++calls; }));
    ASSERT_EQ(calls, 10u);
  }
}

TEST_P(ThreadPoolTest, EveryTaskMayThrow) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 2000; ++round) {
    EXPECT_THROW(pool.ParallelFor(64, [](size_t, size_t) { throw std::bad_alloc(); }),
                 std::bad_alloc);
  }
}

TEST_P(ThreadPoolTest, WakesWorkersThatSleep) {
  ThreadPool pool(GetParam());
  for (size_t round = 0; round < 20; ++round) {
    AwaitSleep(GetParam() - 1);
    for (size_t count : {2u, 3u, 64u}) {
      std::vector<std::atomic<int>> calls(count);
      pool.ParallelFor(count, [&](size_t index, size_t) { ++calls[index]; });
      for (const auto& n : calls) ASSERT_EQ(n, 1);
    }
  }
}

TEST_P(ThreadPoolTest, EndsWhileWorkersSpinOrSleep) {
  for (int round = 0; round < 200; ++round) {
    ThreadPool pool(GetParam());
    std::atomic<size_t> calls = 0;
    for (int i = 0; i < round % 3; ++i) pool.ParallelFor(5, [&](size_t, size_t) { ++calls; });
    EXPECT_EQ(calls, static_cast<size_t>(round % 3) * 5);
    if (round % 50 == 0) AwaitSleep(GetParam() - 1);
  }
}

TEST(ThreadPoolLimitTest, AFailedStartLeavesNoThread) {
  for (int room : {0, 1, 3}) {
    const ThreadLimit limit(room);
    EXPECT_THROW(ThreadPool(5), std::system_error) << room;
  }
  ThreadPool pool(5);
  EXPECT_EQ(pool.threads(), 5u);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 5));

}  // namespace
}  // namespace dimmer
