#include "engine/kernels/attention.h"

#include "engine/kernels/reference.h"
#include "tests/kernels/kernel_test_util.h"

namespace dimmer {
namespace {

TEST(Attention, MatchesTheReferenceAtEveryLength) {
  ForEachTarget([] {
    for (size_t tokens : {1, 2, 11, 12, 16, 17, 22, 33, 130, 512}) {
      for (size_t head_dim : {1, 8, 16, 20, 32, 64}) {
        SCOPED_TRACE(testing::Message() << tokens << " tokens, head of " << head_dim);
        std::mt19937 random(static_cast<uint32_t>(tokens * 100 + head_dim));
        const size_t stride = 3 * head_dim + 5;
        AlignedBuffer<float> qkv(tokens * stride);
        std::vector<std::vector<float>> parts;
        for (size_t i = 0; i < 3; ++i) {
          parts.push_back(RandomFloats(tokens * head_dim, random, 2.0f));
          for (size_t t = 0; t < tokens; ++t) {
            std::copy_n(parts[i].data() + t * head_dim, head_dim,
                        qkv.data() + t * stride + i * head_dim);
          }
        }
        const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
        AlignedBuffer<float> out(tokens * head_dim);
        AlignedBuffer<float> scratch(AttentionScratch(tokens, head_dim));
        AttendHead({qkv.data(), qkv.data() + head_dim, qkv.data() + 2 * head_dim, stride, tokens,
                    head_dim, scale, out.data(), head_dim},
                   scratch.data());
        const std::vector<float> want =
            reference::Attention(parts[0], parts[1], parts[2], tokens, head_dim, scale);
        for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(out[i], want[i], 3e-5) << i;
      }
    }
  });
}

TEST(Attention, LargeScoresDoNotOverflow) {
  ForEachTarget([] {
    // Token 1's key wins by far more than exp can hold.
    const std::vector<float> q = {100, 100};
    const std::vector<float> k = {-100, 100};
    const std::vector<float> v = {3, 7};
    AlignedBuffer<float> out(2);
    AlignedBuffer<float> scratch(AttentionScratch(2, 1));
    AttendHead({q.data(), k.data(), v.data(), 1, 2, 1, 1.0f, out.data(), 1}, scratch.data());
    EXPECT_FLOAT_EQ(out[0], 7);
    EXPECT_FLOAT_EQ(out[1], 7);
  });
}

}  // namespace
}  // namespace dimmer
