#include "engine/sampling/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

namespace dimmer {
namespace {

using testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Sampled Sample(std::span<const float> logits, const Sampling& sampling, uint64_t position = 0) {
  SamplerScratch scratch;
  const auto sampled = SampleToken(logits, sampling, position, scratch);
  EXPECT_TRUE(sampled.ok()) << sampled.status();
  return sampled.value_or(Sampled{-1, 0});
}

// How often each token comes in `draws` positions.
std::map<int32_t, int> Draw(std::span<const float> logits, const Sampling& sampling, int draws) {
  std::map<int32_t, int> counts;
  SamplerScratch scratch;
  for (int i = 0; i < draws; ++i) ++counts[SampleToken(logits, sampling, i, scratch)->id];
  return counts;
}

std::set<int32_t> Ids(const std::map<int32_t, int>& counts) {
  std::set<int32_t> ids;
  for (const auto& [id, count] : counts) ids.insert(id);
  return ids;
}

std::vector<float> RandomLogits(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// The first block of Random123's known answers for Philox4x32-10 is 6627e8d5 e169c58d bc57ac4c
// 9b00dbd8, for counter and key 0.
TEST(UniformTest, IsPhilox) {
  EXPECT_EQ(UniformAt(0, 0), double(0xe169c58d6627e8d5 >> 11) / double(uint64_t{1} << 53));
}

TEST(UniformTest, IsUniformOverPositionsAndOverSeeds) {
  for (const bool over_seeds : {false, true}) {
    constexpr int kBins = 64, kDraws = 64000;
    std::vector<int> bins(kBins);
    double correlation = 0, previous = 0.5;
    for (int i = 0; i < kDraws; ++i) {
      const double u = over_seeds ? UniformAt(uint64_t(i), 7) : UniformAt(7, uint64_t(i));
      ASSERT_GE(u, 0);
      ASSERT_LT(u, 1);
      ++bins[size_t(u * kBins)];
      correlation += (u - 0.5) * (previous - 0.5);
      previous = u;
    }
    double chi_square = 0;
    for (const int count : bins) chi_square += std::pow(count - 1000.0, 2) / 1000;
    // 63 degrees of freedom: mean 63, 0.1% above 103.4 and 0.1% below 32.9.
    EXPECT_LT(chi_square, 103.4);
    EXPECT_GT(chi_square, 32.9);
    EXPECT_LT(std::abs(correlation / kDraws * 12), 4 / std::sqrt(double(kDraws)));
  }
}

TEST(SamplerTest, GreedyTakesTheLowestIdAmongEquals) {
  EXPECT_EQ(Sample(std::vector<float>{1, 5, 2, 5}, {}).id, 1);
  EXPECT_EQ(Sample(std::vector<float>{-kInfinity, -7, -kInfinity}, {}).id, 1);
  EXPECT_EQ(Sample(std::vector<float>{3}, {}).id, 0);
  // Settings beside a temperature of 0 do not matter.
  EXPECT_EQ(Sample(std::vector<float>{1, 5, 2, 5}, {.top_k = 3, .top_p = 0.5f, .seed = 9}).id, 1);
}

TEST(SamplerTest, LogProbabilityIsThatOfTheUnscaledSoftmax) {
  const std::vector<float> logits = RandomLogits(50, 1);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit});
  const Sampling hot{.temperature = 2, .top_k = 20, .top_p = 0.9f, .seed = 3};
  for (const Sampling& sampling : {Sampling{}, hot}) {
    for (uint64_t position = 0; position < 20; ++position) {
      const Sampled sampled = Sample(logits, sampling, position);
      EXPECT_NEAR(sampled.logprob, logits[sampled.id] - std::log(sum), 1e-6);
      EXPECT_EQ(*TokenLogProb(logits, sampled.id), sampled.logprob);
    }
  }
  // Far from what exp() of a float holds.
  EXPECT_NEAR(Sample(std::vector<float>{1000, 999}, {}).logprob, -std::log1p(std::exp(-1.0)), 1e-6);
  EXPECT_EQ(*TokenLogProb(std::vector<float>{0, -kInfinity}, 1), -kInfinity);
}

TEST(SamplerTest, LogitsThatAreNoNumbersFailWithTheirPlace) {
  struct Case {
    std::vector<float> logits;
    std::string message;
  };
  for (const Case& test :
       {Case{{0, kNan, 1}, "logit of token 1 is nan"}, Case{{kNan}, "logit of token 0 is nan"},
        Case{{0, 1, kInfinity}, "logit of token 2 is inf"},
        Case{{-kInfinity, -kInfinity}, "all 2 logits of the model are minus infinity"}}) {
    for (const float temperature : {0.0f, 1.0f}) {
      SamplerScratch scratch;
      const auto sampled = SampleToken(test.logits, {.temperature = temperature}, 0, scratch);
      EXPECT_EQ(sampled.status().code(), absl::StatusCode::kInternal);
      EXPECT_THAT(std::string(sampled.status().message()), HasSubstr(test.message));
    }
    EXPECT_FALSE(TokenLogProb(test.logits, 0).ok());
  }
}

TEST(SamplerTest, CutsKeepWhatTheySay) {
  // Shares 0.4, 0.3, 0.2, 0.06, 0.04, in another order; equal logits at the end.
  const auto log = [](double share) { return float(std::log(share)); };
  const std::vector<float> logits = {log(0.06), log(0.4), log(0.04), log(0.3), log(0.2)};
  struct Case {
    Sampling sampling;
    std::set<int32_t> kept;
  };
  for (const Case& test : std::vector<Case>{
           {{.temperature = 1}, {0, 1, 2, 3, 4}},
           {{.temperature = 1, .top_k = 2}, {1, 3}},
           {{.temperature = 1, .top_k = 1}, {1}},
           {{.temperature = 1, .top_k = 9}, {0, 1, 2, 3, 4}},
           {{.temperature = 1, .top_p = 1}, {0, 1, 2, 3, 4}},
           {{.temperature = 1, .top_p = 0.39f}, {1}},
           {{.temperature = 1, .top_p = 0.41f}, {1, 3}},  // the one that crosses it stays
           {{.temperature = 1, .top_p = 0.89f}, {1, 3, 4}},
           {{.temperature = 1, .top_p = 1e-9f}, {1}},
           {{.temperature = 1, .top_k = 2, .top_p = 0.6f}, {1, 3}},  // of the two: 4/7 and 3/7
           {{.temperature = 1, .top_k = 2, .top_p = 0.5f}, {1}},
           {{.temperature = 1e-20f}, {1}},
       }) {
    Sampling sampling = test.sampling;
    sampling.seed = 5;
    EXPECT_EQ(Ids(Draw(logits, sampling, 2000)), test.kept)
        << sampling.temperature << " " << sampling.top_k << " " << sampling.top_p;
  }
  const std::vector<float> ties = {1, 2, 2, 2, -kInfinity};
  EXPECT_EQ(Ids(Draw(ties, {.temperature = 1, .top_k = 2, .seed = 1}, 500)),
            (std::set<int32_t>{1, 2}));
  EXPECT_EQ(Ids(Draw(ties, {.temperature = 3, .seed = 1}, 500)), (std::set<int32_t>{0, 1, 2, 3}));
}

// What transformers' LogitsProcessorList gives: temperature, then top-k, then top-p, over what each
// leaves.
std::vector<double> Shares(std::span<const float> logits, const Sampling& sampling) {
  std::vector<std::pair<double, size_t>> order;
  for (size_t i = 0; i < logits.size(); ++i) {
    order.emplace_back(-std::exp(double{logits[i]} / sampling.temperature), i);
  }
  std::sort(order.begin(), order.end());
  if (sampling.top_k > 0) order.resize(std::min<size_t>(sampling.top_k, order.size()));
  double sum = 0, seen = 0;
  for (const auto& [weight, id] : order) sum -= weight;
  std::vector<double> shares(logits.size());
  double kept = 0;
  for (const auto& [weight, id] : order) {
    if (sampling.top_p > 0 && seen >= sampling.top_p * sum) break;
    seen -= weight;
    shares[id] = -weight;
    kept -= weight;
  }
  for (double& share : shares) share /= kept;
  return shares;
}

TEST(SamplerTest, DrawsFromTheDistribution) {
  const std::vector<float> logits = RandomLogits(24, 2);
  constexpr int kDraws = 40000;
  for (const Sampling& sampling :
       {Sampling{.temperature = 1, .seed = 11}, Sampling{.temperature = 0.7f, .seed = 12},
        Sampling{.temperature = 1.8f, .seed = 13},
        Sampling{.temperature = 1.8f, .top_k = 8, .seed = 14},
        Sampling{.temperature = 1.8f, .top_p = 0.8f, .seed = 15},
        Sampling{.temperature = 1.3f, .top_k = 12, .top_p = 0.9f, .seed = 16}}) {
    const std::vector<double> shares = Shares(logits, sampling);
    const std::map<int32_t, int> counts = Draw(logits, sampling, kDraws);
    double chi_square = 0, rare = 0;
    int classes = 0, rare_count = 0;
    for (size_t id = 0; id < shares.size(); ++id) {
      const auto found = counts.find(int32_t(id));
      const int count = found == counts.end() ? 0 : found->second;
      if (shares[id] == 0) {
        EXPECT_EQ(count, 0) << id;
      } else if (shares[id] * kDraws < 10) {  // together, as the test's rule of thumb asks
        rare += shares[id] * kDraws;
        rare_count += count;
      } else {
        chi_square += std::pow(count - shares[id] * kDraws, 2) / (shares[id] * kDraws);
        ++classes;
      }
    }
    if (rare > 0) {
      chi_square += std::pow(rare_count - rare, 2) / rare;
      ++classes;
    }
    // Mean classes - 1, variance twice that: four standard deviations.
    const double freedom = classes - 1;
    EXPECT_LT(chi_square, freedom + 4 * std::sqrt(2 * freedom)) << sampling.seed;
  }
}

TEST(SamplerTest, AnswersDependOnSeedAndPositionAlone) {
  const std::vector<float> logits = RandomLogits(300, 3);
  const Sampling sampling{.temperature = 1.5f, .top_k = 200, .top_p = 0.97f, .seed = 77};
  std::vector<int32_t> forward, backward;
  SamplerScratch scratch;
  for (uint64_t i = 0; i < 200; ++i) {
    forward.push_back(SampleToken(logits, sampling, i, scratch)->id);
  }
  for (uint64_t i = 200; i-- > 0;) {
    (void)SampleToken(RandomLogits(50 + i, 4), {.temperature = 1}, i, scratch);
    backward.push_back(SampleToken(logits, sampling, i, scratch)->id);
  }
  std::reverse(backward.begin(), backward.end());
  EXPECT_EQ(forward, backward);
  Sampling other = sampling;
  other.seed = 78;
  std::vector<int32_t> differs;
  for (uint64_t i = 0; i < 200; ++i) differs.push_back(Sample(logits, other, i).id);
  EXPECT_NE(forward, differs);
  EXPECT_GT(std::set<int32_t>(forward.begin(), forward.end()).size(), 20u);
}

}  // namespace
}  // namespace dimmer
