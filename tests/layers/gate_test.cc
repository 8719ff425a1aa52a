#include "engine/layers/gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace dimmer {
namespace {

using testing::ElementsAre;

const float kNan = std::nanf("");

struct TokenCase {
  std::string name;
  TokenGate gate;
  std::vector<float> scores;
  std::vector<uint8_t> mask;
  bool non_finite = false;
};

TokenGate Tau(double tau) { return {GateKind::kDynamicK, tau, 0}; }
TokenGate TopK(uint32_t k) { return {GateKind::kTopK, 1, k}; }

class GateTokenTest : public testing::TestWithParam<TokenCase> {};

TEST_P(GateTokenTest, Chooses) {
  const TokenCase& c = GetParam();
  std::vector<uint8_t> mask(c.scores.size(), 7);
  const TokenChoice choice = GateToken(c.gate, c.scores, mask);
  EXPECT_EQ(mask, c.mask);
  EXPECT_EQ(choice.run, std::accumulate(c.mask.begin(), c.mask.end(), 0u));
  EXPECT_EQ(choice.non_finite, c.non_finite);
}

INSTANTIATE_TEST_SUITE_P(
    Rules, GateTokenTest,
    testing::Values(TokenCase{"half", Tau(0.5), {1, 4, 2, 1.99f}, {0, 1, 1, 0}},
                    TokenCase{"zero_tau_runs_all", Tau(0), {1, 4, 0, 2}, {1, 1, 1, 1}},
                    TokenCase{"one_runs_the_best", Tau(1), {1, 4, 3.9999998f, 2}, {0, 1, 0, 0}},
                    TokenCase{"ties_run", Tau(1), {4, 1, 4, 2}, {1, 0, 1, 0}},
                    TokenCase{"all_zero", Tau(0.3), {0, 0, 0}, {1, 0, 0}},
                    TokenCase{"all_zero_at_one", Tau(1), {0, 0, 0}, {1, 0, 0}},
                    TokenCase{"one_expert", Tau(0.7), {3}, {1}},
                    TokenCase{"one_zero_expert", Tau(0.7), {0}, {1}},
                    TokenCase{"nan", Tau(0.5), {1, kNan, 2}, {1, 1, 1}, true},
                    TokenCase{"nan_first", Tau(0.5), {kNan, 1, 2}, {1, 1, 1}, true},
                    TokenCase{"infinite", Tau(0.5), {1, INFINITY, 2}, {1, 1, 1}, true},
                    TokenCase{"tiny_scores", Tau(0.5), {1e-40f, 3e-40f, 2e-40f}, {0, 1, 1}},
                    TokenCase{"top_two", TopK(2), {1, 4, 2, 3}, {0, 1, 0, 1}},
                    TokenCase{"top_k_prefers_lower", TopK(2), {2, 2, 2}, {1, 1, 0}},
                    TokenCase{"top_k_of_fewer", TopK(9), {2, 1}, {1, 1}},
                    TokenCase{"top_k_all_zero", TopK(2), {0, 0, 0}, {1, 0, 0}},
                    TokenCase{"top_k_nan", TopK(1), {0, kNan}, {1, 1}, true}),
    [](const auto& param) { return param.param.name; });

// 0.1 is not a float: the threshold must not be rounded down past a score below it.
TEST(GateToken, ComparesAsRealNumbersWould) {
  const float max = 3.0f;
  const double tau = 0.1;
  float at = static_cast<float>(tau * max);
  for (int i = 0; i < 4; ++i) at = std::nextafter(at, 0.0f);
  for (int i = 0; i < 8; ++i, at = std::nextafter(at, 1.0f)) {
    const std::vector<float> scores = {max, at};
    std::vector<uint8_t> mask(2);
    GateToken(Tau(tau), scores, mask);
    EXPECT_EQ(mask[1] != 0, double{at} >= tau * double{max});
  }
}

struct QuotaProblem {
  explicit QuotaProblem(size_t tokens, size_t experts, uint32_t seed = 1)
      : tokens(tokens), experts(experts), scores(tokens * experts), mask(tokens * experts) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
    for (float& score : scores) score = uniform(random);
  }
  QuotaChoice Run(const QuotaGate& gate) {
    std::fill(mask.begin(), mask.end(), uint8_t{9});
    const QuotaChoice choice = GateQuota(gate, scores.data(), experts, tokens, experts, mask);
    EXPECT_EQ(choice.run, std::accumulate(mask.begin(), mask.end(), uint64_t{0}));
    return choice;
  }
  std::vector<uint8_t> AtTau(double tau) const {
    std::vector<uint8_t> all(mask.size());
    for (size_t t = 0; t < tokens; ++t) {
      GateToken(Tau(tau), std::span(scores).subspan(t * experts, experts),
                std::span(all).subspan(t * experts, experts));
    }
    return all;
  }
  size_t tokens, experts;
  std::vector<float> scores;
  std::vector<uint8_t> mask;
};

TEST(GateQuota, RunsExactlyAsManyPairsAndEveryTokensBest) {
  QuotaProblem problem(7, 11);
  for (uint64_t pairs = 7; pairs <= 77; ++pairs) {
    const QuotaChoice choice = problem.Run({pairs, 0, 1, false});
    EXPECT_EQ(choice.run, pairs);
    EXPECT_FALSE(choice.bounded);
    for (size_t t = 0; t < 7; ++t) {
      const auto token = problem.scores.begin() + static_cast<std::ptrdiff_t>(t * 11);
      const size_t best = static_cast<size_t>(std::max_element(token, token + 11) - token);
      EXPECT_EQ(problem.mask[t * 11 + best], 1);
    }
  }
}

TEST(GateQuota, EqualsTheTokenGateAtItsTau) {
  QuotaProblem problem(9, 16);
  for (double tau : {0.05, 0.3, 0.6, 0.9}) {
    const std::vector<uint8_t> want = problem.AtTau(tau);
    const uint64_t pairs = std::accumulate(want.begin(), want.end(), uint64_t{0});
    const QuotaChoice choice = problem.Run({pairs, 0, 1, false});
    EXPECT_EQ(problem.mask, want);
    EXPECT_GE(choice.tau, tau - 1e-6);
    // And the reported tau gives the same choice again.
    EXPECT_EQ(problem.AtTau(choice.tau * (1 - 1e-6)), want);
  }
}

TEST(GateQuota, EverythingIsTauZeroAndTheFloorTauOne) {
  QuotaProblem problem(4, 5);
  EXPECT_EQ(problem.Run({20, 0, 1, false}).tau, 0);
  EXPECT_EQ(problem.Run({4, 0, 1, false}).tau, 1);
}

TEST(GateQuota, TiesGoToTheLowerTokenThenTheLowerExpert) {
  QuotaProblem problem(2, 3);
  std::fill(problem.scores.begin(), problem.scores.end(), 0.5f);
  problem.Run({4, 0, 1, true});
  EXPECT_THAT(problem.mask, ElementsAre(1, 1, 1, 1, 0, 0));
  problem.Run({3, 0, 1, true});
  EXPECT_THAT(problem.mask, ElementsAre(1, 1, 0, 1, 0, 0));
}

TEST(GateQuota, MinTauHoldsBackAndSaysSo) {
  QuotaProblem problem(6, 10);
  const std::vector<uint8_t> most = problem.AtTau(0.5);
  const QuotaChoice choice = problem.Run({60, 0.5, 1, false});
  EXPECT_EQ(problem.mask, most);
  EXPECT_TRUE(choice.bounded);
  EXPECT_GE(choice.tau, 0.5);
  EXPECT_FALSE(problem.Run({7, 0.5, 1, false}).bounded);
}

TEST(GateQuota, MaxTauForcesAndSaysSo) {
  QuotaProblem problem(6, 10);
  const std::vector<uint8_t> least = problem.AtTau(0.4);
  const uint64_t needed = std::accumulate(least.begin(), least.end(), uint64_t{0});
  const QuotaChoice choice = problem.Run({6, 0, 0.4, false});
  EXPECT_EQ(problem.mask, least);
  EXPECT_TRUE(choice.bounded);
  EXPECT_EQ(choice.needed, needed);
  EXPECT_LE(choice.tau, 0.4);
  EXPECT_LE(problem.Run({needed + 1, 0, 0.4, false}).needed, needed + 1);
}

TEST(GateQuota, NonFiniteTokensRunAllUnlessTheCapIsHard) {
  QuotaProblem problem(3, 4);
  problem.scores[5] = kNan;  // token 1
  const QuotaChoice soft = problem.Run({3, 0, 1, false});
  EXPECT_EQ(soft.non_finite, 1u);
  EXPECT_THAT(std::span(problem.mask).subspan(4, 4), ElementsAre(1, 1, 1, 1));
  const QuotaChoice hard = problem.Run({5, 0, 1, true});
  EXPECT_EQ(hard.run, 5u);
  EXPECT_EQ(hard.non_finite, 1u);
  EXPECT_THAT(std::span(problem.mask).subspan(4, 4), ElementsAre(1, 1, 1, 0));
}

TEST(GateQuota, AllZeroTokensRunExpertZero) {
  QuotaProblem problem(2, 3);
  std::fill(problem.scores.begin(), problem.scores.end(), 0.0f);
  problem.Run({2, 0, 1, true});
  EXPECT_THAT(problem.mask, ElementsAre(1, 0, 0, 1, 0, 0));
  // With min_tau above zero nothing else may run, as with a tau.
  problem.Run({6, 0.1, 1, false});
  EXPECT_THAT(problem.mask, ElementsAre(1, 0, 0, 1, 0, 0));
}

TEST(GateQuota, NoTokens) {
  QuotaProblem problem(0, 3);
  EXPECT_EQ(problem.Run({0, 0, 1, true}).run, 0u);
}

}  // namespace
}  // namespace dimmer
