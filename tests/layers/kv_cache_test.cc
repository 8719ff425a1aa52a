#include "engine/layers/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <set>
#include <thread>
#include <utility>

namespace dimmer {
namespace {

constexpr KvShape kShape{.layers = 3, .heads = 2, .head_dim = 5};
constexpr size_t kBlock = 2 * KvHeadBlock(5);

TEST(KvPoolTest, CountsPages) {
  EXPECT_EQ(KvPool::PagesFor(0), 0u);
  EXPECT_EQ(KvPool::PagesFor(1), 1u);
  EXPECT_EQ(KvPool::PagesFor(16), 1u);
  EXPECT_EQ(KvPool::PagesFor(17), 2u);
  const KvPool pool(kShape, 10);
  EXPECT_EQ(pool.pages(), 10u);
  EXPECT_EQ(pool.free_pages(), 10u);
  EXPECT_EQ(pool.page_bytes(), 3 * 2 * kBlock * sizeof(float));
  EXPECT_EQ(KvPool(kShape, 0).free_pages(), 0u);
}

TEST(KvPoolTest, ReservesWholeOrNotAtAll) {
  KvPool pool(kShape, 4);
  auto three = pool.Reserve(48);
  ASSERT_TRUE(three.has_value());
  EXPECT_EQ(three->pages(), 3u);
  EXPECT_EQ(three->tokens(), 48u);
  EXPECT_FALSE(pool.Reserve(17).has_value());
  EXPECT_EQ(pool.free_pages(), 1u);
  KvPages moved;
  {
    KvPages scoped = *std::move(three);
    moved = std::move(scoped);
  }
  EXPECT_EQ(pool.free_pages(), 1u);
  moved = KvPages();
  EXPECT_EQ(pool.free_pages(), 4u);
  EXPECT_TRUE(pool.Reserve(64).has_value());
  EXPECT_EQ(pool.free_pages(), 4u);
}

TEST(KvPoolTest, NoTwoBlocksOverlap) {
  KvPool pool(kShape, 5);
  const auto a = pool.Reserve(33), b = pool.Reserve(20);
  std::set<float*> starts;
  float value = 0;
  for (const KvPages* pages : {&*a, &*b}) {
    for (size_t page = 0; page < pages->pages(); ++page) {
      for (size_t layer = 0; layer < kShape.layers; ++layer) {
        for (float* block : {pages->k(layer, page), pages->v(layer, page)}) {
          EXPECT_TRUE(starts.insert(block).second);
          std::fill(block, block + kBlock, ++value);
        }
      }
    }
  }
  EXPECT_EQ(starts.size(), 5 * 3 * 2u);
  std::set<float> seen;
  for (const float* block : starts) {
    for (size_t i = 0; i < kBlock; ++i) ASSERT_EQ(block[i], block[0]);
    seen.insert(block[0]);
  }
  EXPECT_EQ(seen.size(), starts.size());
}

TEST(KvPoolTest, ManyThreadsNeverShareAPage) {
  KvPool pool({.layers = 1, .heads = 1, .head_dim = 1}, 64);
  std::atomic<int> shared = 0;
  std::vector<std::thread> threads;
  for (uint32_t t = 1; t <= 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 2000; ++i) {
        const auto pages = pool.Reserve(1 + random() % 400);
        if (!pages) continue;
        const auto mark = float(t * 10000 + uint32_t(i));
        for (size_t page = 0; page < pages->pages(); ++page) *pages->k(0, page) = mark;
        for (size_t page = 0; page < pages->pages(); ++page) shared += *pages->k(0, page) != mark;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shared, 0);
  EXPECT_EQ(pool.free_pages(), 64u);
}

}  // namespace
}  // namespace dimmer
