// Experts of gated layers (SwiGLU): act(z W1) * (z Up), in every weight format.
#include <algorithm>

#include "engine/kernels/expert_ffn.h"
#include "engine/kernels/reference.h"
#include "tests/kernels/kernel_test_util.h"

namespace dimmer {
namespace {

struct Shape {
  size_t tokens, d, experts, expert_size;
};
// Slabs of whole panels and others; more than 8 panels, which is one step of the product.
constexpr Shape kShapes[] = {{1, 16, 1, 16}, {5, 24, 3, 16},  {13, 40, 4, 24},  {29, 33, 6, 6},
                             {3, 7, 2, 3},   {12, 16, 5, 40}, {14, 64, 1, 172}, {2, 65, 9, 1}};
constexpr WeightFormat kAllFormats[] = {WeightFormat::kF32, WeightFormat::kF16,
                                        WeightFormat::kBF16};

struct Problem {
  Problem(const Shape& s, WeightFormat format, bool biased)
      : shape(s), hidden(s.experts * s.expert_size) {
    std::mt19937 random(static_cast<uint32_t>(s.tokens + 31 * s.d + 7 * s.experts + s.expert_size));
    const float in_scale = 1.0f / std::sqrt(static_cast<float>(s.d));
    z = RandomFloats(s.tokens * s.d, random);
    w1 = Rounded(RandomFloats(hidden * s.d, random, in_scale), format);
    up = Rounded(RandomFloats(hidden * s.d, random, in_scale), format);
    w2 = Rounded(RandomFloats(s.d * hidden, random, 1.0f / std::sqrt(static_cast<float>(hidden))),
                 format);
    b1.resize(hidden);
    if (biased) b1 = RandomFloats(hidden, random);
    b2.resize(s.d);
    ffn = MakePackedFfn(s.d, s.experts, s.expert_size, Activation::kSilu, format);
    PackFfnIn(w1, b1, ffn);
    PackFfnUp(up, ffn);
    PackFfnOut(w2, b2, ffn);
    padded_z = Padded(z, s.tokens, s.d);
    scratch = AlignedBuffer<float>(std::max(s.tokens, kMaxTileRows) * HiddenStride(ffn, s.experts));
  }
  AlignedBuffer<float> Start() const { return AlignedBuffer<float>(shape.tokens * stride()); }
  size_t stride() const { return PaddedWidth(shape.d); }
  ExpertRows Rows(AlignedBuffer<float>& out) const {
    return {padded_z.data(), stride(), out.data(), stride(), nullptr, shape.tokens};
  }
  void ExpectReference(const AlignedBuffer<float>& out,
                       const std::vector<std::vector<bool>>& masks) const {
    for (size_t t = 0; t < shape.tokens; ++t) {
      const auto want =
          reference::ExpertFfn(std::span(z).subspan(t * shape.d, shape.d), w1, b1, w2, b2, masks[t],
                               shape.expert_size, Activation::kSilu, up);
      for (size_t c = 0; c < shape.d; ++c) {
        ASSERT_NEAR(out[t * stride() + c], want[c], 1e-5) << t << "," << c;
      }
    }
  }
  Shape shape;
  size_t hidden;
  std::vector<float> z, w1, up, b1, w2, b2;
  PackedFfn ffn;
  AlignedBuffer<float> padded_z, scratch;
};

bool Same(const AlignedBuffer<float>& a, const AlignedBuffer<float>& b) {
  return std::equal(a.data(), a.data() + a.size(), b.data());
}

template <typename F>
void ForEachProblem(const F& body) {
  ForEachTarget([&] {
    for (WeightFormat format : kAllFormats) {
      for (const Shape& s : kShapes) {
        for (bool biased : {false, true}) {
          SCOPED_TRACE(testing::Message() << "format " << int(format) << ": " << s.tokens << " "
                                          << s.d << " " << s.experts << "x" << s.expert_size);
          Problem problem(s, format, biased);
          body(s, problem);
        }
      }
    }
  });
}

TEST(GatedFfn, DenseMatchesTheReferenceHoweverItIsCut) {
  ForEachProblem([](const Shape& s, Problem& problem) {
    AlignedBuffer<float> dense = problem.Start();
    RunExperts(problem.ffn, 0, s.experts, problem.Rows(dense), problem.scratch.data());
    problem.ExpectReference(dense, {s.tokens, std::vector<bool>(s.experts, true)});

    AlignedBuffer<float> single = problem.Start();
    for (size_t n = 0; n < s.experts; ++n) {
      RunExperts(problem.ffn, n, 1, problem.Rows(single), problem.scratch.data());
    }
    EXPECT_TRUE(Same(dense, single));

    AlignedBuffer<float> halves = problem.Start();
    const size_t half = (s.experts + 1) / 2;
    for (const auto& [first, count] : {std::pair(size_t{0}, half), {half, s.experts - half}}) {
      if (count == 0) continue;
      ExpertsHidden(problem.ffn, first, count, problem.Rows(halves), problem.scratch.data());
      for (size_t p = 0; p < problem.ffn.panels(); ++p) {
        ExpertsOut(problem.ffn, first, count, problem.Rows(halves), problem.scratch.data(), p, 1);
      }
    }
    EXPECT_TRUE(Same(dense, halves));
  });
}

TEST(GatedFfn, RandomMasksMatchTheReferenceAndDoNotDependOnTheTile) {
  ForEachProblem([](const Shape& s, Problem& problem) {
    std::mt19937 random(3);
    std::vector<std::vector<bool>> masks(s.tokens, std::vector<bool>(s.experts));
    AlignedBuffer<float> grouped = problem.Start();
    AlignedBuffer<float> alone = problem.Start();
    for (size_t n = 0; n < s.experts; ++n) {
      std::vector<uint32_t> list;
      for (size_t t = 0; t < s.tokens; ++t) {
        masks[t][n] = random() % 3 == 0;
        if (!masks[t][n]) continue;
        list.push_back(static_cast<uint32_t>(t));
        ExpertRows one = problem.Rows(alone);
        one.rows = &list.back();
        one.count = 1;
        RunExperts(problem.ffn, n, 1, one, problem.scratch.data());
      }
      ExpertRows rows = problem.Rows(grouped);
      rows.rows = list.data();
      rows.count = list.size();
      RunExperts(problem.ffn, n, 1, rows, problem.scratch.data());
    }
    EXPECT_TRUE(Same(grouped, alone));
    problem.ExpectReference(grouped, masks);
  });
}

TEST(GatedFfn, NeuronsPastTheHiddenWidthAddNothing) {
  ForEachTarget([] {
    const size_t d = 20, hidden = 37;
    std::mt19937 random(5);
    const auto w1 = RandomFloats(hidden * d, random, 0.2f);
    const auto up = RandomFloats(hidden * d, random, 0.2f);
    const auto w2 = RandomFloats(d * hidden, random, 0.2f);
    const auto z = RandomFloats(d, random);
    PackedFfn ffn = MakePackedFfn(d, 3, 16, Activation::kSilu, WeightFormat::kF32);
    PackFfnIn(w1, {}, ffn);
    PackFfnUp(up, ffn);
    PackFfnOut(w2, {}, ffn);
    AlignedBuffer<float> out(PaddedWidth(d));
    AlignedBuffer<float> scratch(kMaxTileRows * HiddenStride(ffn, 3));
    const AlignedBuffer<float> padded_z = Padded(z, 1, d);
    RunExperts(ffn, 0, 3, {padded_z.data(), PaddedWidth(d), out.data(), PaddedWidth(d), nullptr, 1},
               scratch.data());
    const auto want =
        reference::ExpertFfn(z, w1, std::vector<float>(hidden), w2, std::vector<float>(d),
                             std::vector<bool>(hidden, true), 1, Activation::kSilu, up);
    for (size_t c = 0; c < d; ++c) EXPECT_NEAR(out[c], want[c], 1e-5);
  });
}

}  // namespace
}  // namespace dimmer
