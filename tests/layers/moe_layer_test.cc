#include "engine/layers/moe_layer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "engine/kernels/reference.h"
#include "tests/kernels/kernel_test_util.h"

namespace dimmer {
namespace {

constexpr size_t kWidth = 20;
constexpr size_t kExperts = 7;
constexpr size_t kExpertSize = 12;
constexpr size_t kHidden = kExperts * kExpertSize;
constexpr size_t kRouterWidth = 9;
constexpr size_t kTokens = 61;

struct Problem {
  explicit Problem(GateSpec gate = {}, float router_scale = 1) {
    std::mt19937 random(7);
    z = RandomFloats(kTokens * kWidth, random);
    residual = RandomFloats(kTokens * kWidth, random);
    w1 = RandomFloats(kHidden * kWidth, random, 0.3f);
    b1 = RandomFloats(kHidden, random);
    w2 = RandomFloats(kWidth * kHidden, random, 0.3f);
    b2 = RandomFloats(kWidth, random);
    router1 = RandomFloats(kRouterWidth * kWidth, random, router_scale);
    router2 = RandomFloats(kExperts * kRouterWidth, random);
    PackedFfn ffn =
        MakePackedFfn(kWidth, kExperts, kExpertSize, Activation::kRelu, WeightFormat::kF32);
    PackFfnIn(w1, b1, ffn);
    PackFfnOut(w2, b2, ffn);
    Router router(kWidth, kRouterWidth, kExperts, WeightFormat::kF32);
    router.first().Set(0, router1, {});
    router.second().Set(0, router2, {});
    layer = MoeLayer(std::move(ffn), std::move(router), gate);
    padded_z = Padded(z, kTokens, kWidth);
    padded_residual = Padded(residual, kTokens, kWidth);
  }

  // [kTokens, PaddedWidth(kWidth)]
  AlignedBuffer<float> Apply(std::vector<MoeSequence>& sequences, size_t threads,
                             ModuleStats* stats = nullptr) const {
    AlignedBuffer<float> out(padded_z.size());
    ThreadPool pool(threads);
    Workspace workspace;
    layer.Apply(padded_z.data(), padded_residual.data(), out.data(), sequences, pool, workspace,
                stats);
    return out;
  }

  // Which experts token t runs at tau, by scalar code.
  std::vector<bool> Mask(size_t t, double tau) const {
    const auto token = std::span(z).subspan(t * kWidth, kWidth);
    const auto hidden =
        reference::Linear(token, 1, router1, kRouterWidth, kWidth, {}, Activation::kRelu);
    const auto scores =
        reference::Linear(hidden, 1, router2, kExperts, kRouterWidth, {}, Activation::kAbs);
    const double max = *std::max_element(scores.begin(), scores.end());
    std::vector<bool> mask(kExperts);
    for (size_t n = 0; n < kExperts; ++n) mask[n] = scores[n] >= tau * max;
    return mask;
  }

  void ExpectRow(const AlignedBuffer<float>& out, size_t t, const std::vector<bool>& mask) const {
    const auto want = reference::ExpertFfn(std::span(z).subspan(t * kWidth, kWidth), w1, b1, w2, b2,
                                           mask, kExpertSize, Activation::kRelu);
    for (size_t c = 0; c < kWidth; ++c) {
      ASSERT_NEAR(out[t * PaddedWidth(kWidth) + c], want[c] + residual[t * kWidth + c], 2e-5)
          << "token " << t;
    }
  }

  std::vector<float> z, residual, w1, b1, w2, b2, router1, router2;
  AlignedBuffer<float> padded_z, padded_residual;
  MoeLayer layer;
};

MoeSequence At(size_t first, size_t count, double tau) {
  MoeSequence sequence;
  sequence.rows = {first, count};
  sequence.tau = tau;
  return sequence;
}

TEST(MoeLayer, MatchesAScalarImplementationWithTheSameMasks) {
  const Problem problem;
  ForEachTarget([&] {
    for (size_t threads : {1, 2, 4}) {
      // Dense, routed, dense again, and a single token.
      std::vector<MoeSequence> sequences = {At(0, 17, 0), At(17, 30, 0.3), At(47, 13, 0),
                                            At(60, 1, 0.8)};
      const AlignedBuffer<float> out = problem.Apply(sequences, threads);
      for (const MoeSequence& sequence : sequences) {
        uint64_t pairs = 0;
        for (size_t r = 0; r < sequence.rows.count; ++r) {
          const std::vector<bool> mask = problem.Mask(sequence.rows.first + r, sequence.tau);
          pairs += static_cast<uint64_t>(std::count(mask.begin(), mask.end(), true));
          problem.ExpectRow(out, sequence.rows.first + r, mask);
        }
        EXPECT_EQ(sequence.pairs, pairs);
        EXPECT_EQ(sequence.routed, sequence.tau > 0);
      }
    }
  });
}

TEST(MoeLayer, ThreadsAndNeighboursDoNotChangeBits) {
  const Problem problem;
  std::vector<MoeSequence> together = {At(0, 20, 0.2), At(20, 20, 0), At(40, 21, 0.6)};
  const AlignedBuffer<float> want = problem.Apply(together, 1);
  for (size_t threads : {2, 3}) {
    const AlignedBuffer<float> out = problem.Apply(together, threads);
    for (size_t i = 0; i < out.size(); ++i) {
      if (i % PaddedWidth(kWidth) < kWidth) {
        ASSERT_EQ(out[i], want[i]);
      }
    }
  }
  for (const MoeSequence& sequence : together) {
    std::vector<MoeSequence> alone = {sequence};
    const AlignedBuffer<float> out = problem.Apply(alone, 2);
    for (size_t r = 0; r < sequence.rows.count; ++r) {
      const size_t at = (sequence.rows.first + r) * PaddedWidth(kWidth);
      for (size_t c = 0; c < kWidth; ++c) ASSERT_EQ(out[at + c], want[at + c]);
    }
  }
}

TEST(MoeLayer, ScoresThatAreNotFiniteRunAllAndAreCounted) {
  // Scores overflow to infinity for all tokens whose router hidden state is not all zero.
  const Problem problem({}, 1e38f);
  ModuleStats stats;
  stats.expert_tokens.resize(kExperts);
  stats.experts_per_token.resize(kExperts + 1);
  std::vector<MoeSequence> routed = {At(0, kTokens, 0.5)};
  const AlignedBuffer<float> out = problem.Apply(routed, 1, &stats);
  EXPECT_EQ(routed[0].pairs, kTokens * kExperts);
  EXPECT_EQ(stats.non_finite_scores, kTokens);
  EXPECT_EQ(stats.experts_per_token[kExperts], kTokens);
  std::vector<MoeSequence> dense = {At(0, kTokens, 0)};
  const AlignedBuffer<float> want = problem.Apply(dense, 1);
  for (size_t i = 0; i < out.size(); ++i) {
    if (i % PaddedWidth(kWidth) < kWidth) {
      ASSERT_EQ(out[i], want[i]);
    }
  }
}

TEST(MoeLayer, AQuotaRunsItsNumberOfPairs) {
  const Problem problem;
  for (uint64_t pairs : {uint64_t{kTokens}, uint64_t{200}, uint64_t{kTokens * kExperts}}) {
    std::vector<MoeSequence> sequences = {At(0, kTokens, 0)};
    sequences[0].quota = QuotaGate{pairs, 0, 1, true};
    problem.Apply(sequences, 2);
    EXPECT_EQ(sequences[0].pairs, pairs);
    EXPECT_EQ(sequences[0].routed, pairs < kTokens * kExperts);  // all of them need no router
  }
}

TEST(MoeLayer, AHardQuotaThatMaxTauExcludesRunsNothing) {
  const Problem problem;
  std::vector<MoeSequence> sequences = {At(0, 30, 0), At(30, 31, 0.3)};
  sequences[0].quota = QuotaGate{30, 0, 0.01, true};
  const AlignedBuffer<float> out = problem.Apply(sequences, 1);
  EXPECT_GT(sequences[0].needed, 30u);
  EXPECT_EQ(sequences[0].pairs, 0u);
  for (size_t t = 30; t < kTokens; ++t) problem.ExpectRow(out, t, problem.Mask(t, 0.3));
}

}  // namespace
}  // namespace dimmer
