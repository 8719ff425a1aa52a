#include "engine/kernels/expert_ffn.h"

#include <algorithm>

#include "engine/kernels/reference.h"
#include "tests/kernels/kernel_test_util.h"

namespace dimmer {
namespace {

struct Problem {
  Problem(size_t tokens, size_t d, size_t experts, size_t expert_size, Activation activation)
      : tokens(tokens), d(d), hidden(experts * expert_size) {
    std::mt19937 random(static_cast<uint32_t>(tokens + 31 * d + 7 * experts + expert_size));
    z = RandomFloats(tokens * d, random);
    w1 = RandomFloats(hidden * d, random, 1.0f / std::sqrt(static_cast<float>(d)));
    b1 = RandomFloats(hidden, random);
    w2 = RandomFloats(d * hidden, random, 1.0f / std::sqrt(static_cast<float>(hidden)));
    b2 = RandomFloats(d, random);
    ffn = Packed(experts, expert_size, activation, WeightFormat::kF32);
    padded_z = Padded(z, tokens, d);
  }
  PackedFfn Packed(size_t experts, size_t expert_size, Activation activation,
                   WeightFormat format) const {
    PackedFfn packed = MakePackedFfn(d, experts, expert_size, activation, format);
    PackFfnIn(w1, b1, packed);
    PackFfnOut(w2, b2, packed);
    return packed;
  }
  // Every row starts from b2.
  AlignedBuffer<float> Start() const {
    AlignedBuffer<float> out(tokens * PaddedWidth(d));
    for (size_t t = 0; t < tokens; ++t) {
      std::copy(b2.begin(), b2.end(), out.data() + t * PaddedWidth(d));
    }
    return out;
  }
  ExpertRows Rows(AlignedBuffer<float>& out) const {
    return {padded_z.data(), PaddedWidth(d), out.data(), PaddedWidth(d), nullptr, tokens};
  }
  AlignedBuffer<float> Scratch(size_t experts) const {
    return AlignedBuffer<float>(std::max(tokens, kMaxTileRows) * HiddenStride(ffn, experts));
  }
  size_t tokens, d, hidden;
  std::vector<float> z, w1, b1, w2, b2;
  PackedFfn ffn;
  AlignedBuffer<float> padded_z;
};

bool Same(const AlignedBuffer<float>& a, const AlignedBuffer<float>& b) {
  return std::equal(a.data(), a.data() + a.size(), b.data());
}

struct Shape {
  size_t tokens, d, experts, expert_size;
};
constexpr Shape kShapes[] = {{1, 16, 1, 16},  {5, 24, 3, 16}, {13, 40, 4, 24}, {29, 33, 6, 6},
                             {12, 16, 5, 40}, {3, 7, 2, 3},   {50, 48, 8, 16}, {2, 65, 9, 1}};

TEST(ExpertFfn, DenseMatchesTheReference) {
  ForEachTarget([] {
    for (const Shape& s : kShapes) {
      SCOPED_TRACE(testing::Message()
                   << s.tokens << " " << s.d << " " << s.experts << "x" << s.expert_size);
      const Problem problem(s.tokens, s.d, s.experts, s.expert_size, Activation::kGelu);
      AlignedBuffer<float> out = problem.Start();
      AlignedBuffer<float> scratch = problem.Scratch(s.experts);
      RunExperts(problem.ffn, 0, s.experts, problem.Rows(out), scratch.data());
      for (size_t t = 0; t < s.tokens; ++t) {
        const std::vector<float> want = reference::ExpertFfn(
            std::span(problem.z).subspan(t * s.d, s.d), problem.w1, problem.b1, problem.w2,
            problem.b2, std::vector<bool>(s.experts, true), s.expert_size, Activation::kGelu);
        for (size_t c = 0; c < s.d; ++c) {
          ASSERT_NEAR(out[t * PaddedWidth(s.d) + c], want[c], 1e-5) << t << "," << c;
        }
      }
    }
  });
}

TEST(ExpertFfn, SixteenBitWeightsGiveTheBitsOfTheirValues) {
  ForEachTarget([] {
    for (WeightFormat format : k16BitFormats) {
      for (const Shape& s : kShapes) {
        SCOPED_TRACE(testing::Message()
                     << s.tokens << " " << s.d << " " << s.experts << "x" << s.expert_size);
        Problem problem(s.tokens, s.d, s.experts, s.expert_size, Activation::kGelu);
        problem.w1 = Rounded(problem.w1, format);
        problem.w2 = Rounded(problem.w2, format);
        AlignedBuffer<float> scratch = problem.Scratch(s.experts);
        AlignedBuffer<float> outs[2] = {problem.Start(), problem.Start()};
        const WeightFormat formats[2] = {WeightFormat::kF32, format};
        for (size_t i = 0; i < 2; ++i) {
          problem.ffn = problem.Packed(s.experts, s.expert_size, Activation::kGelu, formats[i]);
          RunExperts(problem.ffn, 0, s.experts, problem.Rows(outs[i]), scratch.data());
        }
        ASSERT_TRUE(Same(outs[0], outs[1]));
      }
    }
  });
}

TEST(ExpertFfn, DenseEqualsOneExpertAtATimeBitForBit) {
  ForEachTarget([] {
    for (const Shape& s : kShapes) {
      const Problem problem(s.tokens, s.d, s.experts, s.expert_size, Activation::kRelu);
      AlignedBuffer<float> scratch = problem.Scratch(s.experts);
      AlignedBuffer<float> dense = problem.Start();
      RunExperts(problem.ffn, 0, s.experts, problem.Rows(dense), scratch.data());
      AlignedBuffer<float> single = problem.Start();
      for (size_t n = 0; n < s.experts; ++n) {
        RunExperts(problem.ffn, n, 1, problem.Rows(single), scratch.data());
      }
      EXPECT_TRUE(Same(dense, single));
      // And in two blocks, hidden first, output panel by output panel.
      AlignedBuffer<float> halves = problem.Start();
      const size_t half = (s.experts + 1) / 2;
      for (const auto& [first, count] : {std::pair(size_t{0}, half), {half, s.experts - half}}) {
        if (count == 0) continue;
        ExpertsHidden(problem.ffn, first, count, problem.Rows(halves), scratch.data());
        for (size_t p = 0; p < problem.ffn.panels(); ++p) {
          ExpertsOut(problem.ffn, first, count, problem.Rows(halves), scratch.data(), p, 1);
        }
      }
      EXPECT_TRUE(Same(dense, halves));
    }
  });
}

TEST(ExpertFfn, RandomMasksMatchTheReferenceAndDoNotDependOnTheTile) {
  ForEachTarget([] {
    for (const Shape& s : kShapes) {
      const Problem problem(s.tokens, s.d, s.experts, s.expert_size, Activation::kRelu);
      std::mt19937 random(3);
      std::vector<std::vector<bool>> masks(s.tokens, std::vector<bool>(s.experts));
      for (auto& mask : masks) {
        for (size_t n = 0; n < s.experts; ++n) mask[n] = random() % 3 == 0;
      }
      AlignedBuffer<float> scratch = problem.Scratch(s.experts);
      AlignedBuffer<float> grouped = problem.Start();
      AlignedBuffer<float> alone = problem.Start();
      for (size_t n = 0; n < s.experts; ++n) {
        std::vector<uint32_t> list;
        for (size_t t = 0; t < s.tokens; ++t) {
          if (!masks[t][n]) continue;
          list.push_back(static_cast<uint32_t>(t));
          ExpertRows one = problem.Rows(alone);
          one.rows = &list.back();
          one.count = 1;
          RunExperts(problem.ffn, n, 1, one, scratch.data());
        }
        ExpertRows rows = problem.Rows(grouped);
        rows.rows = list.data();
        rows.count = list.size();
        RunExperts(problem.ffn, n, 1, rows, scratch.data());
      }
      EXPECT_TRUE(Same(grouped, alone));
      for (size_t t = 0; t < s.tokens; ++t) {
        const std::vector<float> want = reference::ExpertFfn(
            std::span(problem.z).subspan(t * s.d, s.d), problem.w1, problem.b1, problem.w2,
            problem.b2, masks[t], s.expert_size, Activation::kRelu);
        for (size_t c = 0; c < s.d; ++c) {
          ASSERT_NEAR(grouped[t * PaddedWidth(s.d) + c], want[c], 1e-5) << t << "," << c;
        }
      }
    }
  });
}

TEST(PackedFfn, NeuronsPastTheHiddenWidthAddNothing) {
  const size_t d = 20;
  const size_t hidden = 37;
  const size_t slab = 16;
  std::mt19937 random(5);
  const auto w1 = RandomFloats(hidden * d, random);
  const auto b1 = RandomFloats(hidden, random);
  const auto w2 = RandomFloats(d * hidden, random);
  const auto b2 = RandomFloats(d, random);
  const auto z = RandomFloats(d, random);
  PackedFfn ffn = MakePackedFfn(d, 3, slab, Activation::kGelu, WeightFormat::kF32);
  PackFfnIn(w1, b1, ffn);
  PackFfnOut(w2, b2, ffn);
  AlignedBuffer<float> out = PadBias(b2);
  AlignedBuffer<float> scratch(kMaxTileRows * HiddenStride(ffn, 3));
  const AlignedBuffer<float> padded_z = Padded(z, 1, d);
  RunExperts(ffn, 0, 3, {padded_z.data(), PaddedWidth(d), out.data(), PaddedWidth(d), nullptr, 1},
             scratch.data());
  const auto want = reference::ExpertFfn(z, w1, b1, w2, b2, std::vector<bool>(hidden, true), 1,
                                         Activation::kGelu);
  for (size_t c = 0; c < d; ++c) EXPECT_NEAR(out[c], want[c], 1e-4);
}

TEST(PackedFfn, DenseSlabsCoverAnyHiddenWidth) {
  for (size_t hidden : {1, 15, 16, 37, 192, 193, 768, 1536, 3072, 4099}) {
    const size_t slab = DenseSlabSize(hidden);
    EXPECT_EQ(slab % kPanel, 0u) << hidden;
    const size_t slabs = (hidden + slab - 1) / slab;
    EXPECT_GE(slab * slabs, hidden);
    EXPECT_LT(slab * slabs - hidden, slab) << hidden;
    EXPECT_LE(slab, 208u);
  }
}

}  // namespace
}  // namespace dimmer
