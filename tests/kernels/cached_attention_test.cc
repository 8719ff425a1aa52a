#include "engine/kernels/cached_attention.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "engine/kernels/reference.h"
#include "tests/kernels/kernel_test_util.h"

namespace dimmer {
namespace {

constexpr size_t kHeads = 2;  // the head under test is the second one

// Keys and values of one head, in pages of two heads.
struct Cache {
  // Tokens in the pages that `order` names; every float that is not stored is `garbage`.
  Cache(const std::vector<float>& k, const std::vector<float>& v, size_t head_dim,
        std::vector<uint32_t> order, float garbage)
      : pages(std::move(order)) {
    const size_t block = KvHeadBlock(head_dim);
    stride = 2 * kHeads * block + 16;
    memory = AlignedBuffer<float>((*std::max_element(pages.begin(), pages.end()) + 1) * stride);
    std::fill(memory.data(), memory.data() + memory.size(), garbage);
    keys = memory.data() + block;
    values = memory.data() + (kHeads + 1) * block;
    for (size_t t = 0; t * head_dim < k.size(); ++t) {
      const size_t at = pages[t / kKvPageTokens] * stride;
      StoreKeyValue(k.data() + t * head_dim, v.data() + t * head_dim, head_dim, t % kKvPageTokens,
                    keys + at, values + at);
    }
  }
  KvView view() const { return {keys, values, pages.data(), stride}; }

  std::vector<uint32_t> pages;
  size_t stride;
  AlignedBuffer<float> memory;
  float* keys;
  float* values;
};

std::vector<float> Attend(const Cache& cache, const std::vector<float>& q, size_t tokens,
                          float scale) {
  constexpr float kUntouched = 12345.0f;
  const size_t head_dim = q.size();
  std::vector<float> out(head_dim + 1, kUntouched);
  AlignedBuffer<float> scratch(CachedAttentionScratch(tokens) + 1);
  std::fill(scratch.data(), scratch.data() + scratch.size(), NAN);
  scratch[scratch.size() - 1] = kUntouched;
  AttendCached({q.data(), cache.view(), tokens, head_dim, scale, out.data()}, scratch.data());
  EXPECT_EQ(out.back(), kUntouched);
  EXPECT_EQ(scratch[scratch.size() - 1], kUntouched);
  out.pop_back();
  return out;
}

std::vector<uint32_t> InOrder(size_t pages) {
  std::vector<uint32_t> order(pages);
  std::iota(order.begin(), order.end(), 0u);
  return order;
}

// Pages anywhere, and what no token has stored holds NaN: neither must show, not in a bit.
TEST(CachedAttention, MatchesTheReferenceWhereverPagesAre) {
  ForEachTarget([] {
    for (size_t head_dim : {1, 2, 8, 12, 16, 20, 32, 48, 64, 80, 128}) {
      for (size_t tokens : {1,  2,  3,  4,  5,  15, 16, 17,  31,  32,  33, 47,
                            48, 63, 64, 65, 79, 80, 81, 127, 128, 129, 300}) {
        SCOPED_TRACE(testing::Message() << tokens << " tokens, head of " << head_dim);
        std::mt19937 random(static_cast<uint32_t>(tokens * 1000 + head_dim));
        const auto q = RandomFloats(head_dim, random, 2.0f);
        const auto k = RandomFloats(tokens * head_dim, random, 2.0f);
        const auto v = RandomFloats(tokens * head_dim, random, 2.0f);
        const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
        std::vector<uint32_t> order = InOrder(2 * Panels(tokens) + 1);
        std::shuffle(order.begin(), order.end(), random);
        order.resize(Panels(tokens));
        const std::vector<float> got = Attend(Cache(k, v, head_dim, order, NAN), q, tokens, scale);
        const std::vector<float> want = reference::AttentionOfQuery(q, k, v, scale);
        for (size_t c = 0; c < head_dim; ++c) ASSERT_NEAR(got[c], want[c], 3e-5) << c;
        const Cache tidy(k, v, head_dim, InOrder(order.size()), 0);
        ASSERT_EQ(Attend(tidy, q, tokens, scale), got);
      }
    }
  });
}

// A query sees the tokens it is told of, though later ones are stored already.
TEST(CachedAttention, LaterTokensDoNotShow) {
  ForEachTarget([] {
    const size_t head_dim = 20, stored = 70;
    std::mt19937 random(3);
    const auto q = RandomFloats(head_dim, random);
    const auto k = RandomFloats(stored * head_dim, random);
    const auto v = RandomFloats(stored * head_dim, random);
    const Cache all(k, v, head_dim, {4, 1, 0, 2, 3}, NAN);
    for (size_t tokens = 1; tokens <= stored; ++tokens) {
      const auto end = static_cast<std::ptrdiff_t>(tokens * head_dim);
      const Cache some({k.begin(), k.begin() + end}, {v.begin(), v.begin() + end}, head_dim,
                       InOrder(Panels(tokens)), NAN);
      ASSERT_EQ(Attend(all, q, tokens, 0.3f), Attend(some, q, tokens, 0.3f)) << tokens;
    }
  });
}

TEST(CachedAttention, LargeScoresDoNotOverflow) {
  ForEachTarget([] {
    // Token 18's key wins by far more than exp can hold.
    std::vector<float> k(20, -100), v(20, 3);
    k[18] = 100;
    v[18] = 7;
    EXPECT_EQ(Attend(Cache(k, v, 1, {1, 0}, NAN), {100}, 20, 1.0f), std::vector<float>{7});
    k.assign(20, -1e18f);  // all as far away
    const auto mean = Attend(Cache(k, v, 1, {1, 0}, NAN), {1e18f}, 20, 1.0f);
    EXPECT_FLOAT_EQ(mean[0], 3.2f);
  });
}

}  // namespace
}  // namespace dimmer
