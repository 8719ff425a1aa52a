#include "engine/budget/generation_budget.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/budget/generation_run.h"

namespace dimmer {
namespace {

using testing::Each;
using testing::HasSubstr;

ComputePlan Plan(const Budget& budget, const TauSettings& settings, const CostModel& cost,
                 const GenerationSize& size) {
  const auto plan = PlanGeneration(budget, settings, cost, size);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *plan;
}
Budget Fraction(double value) { return {.kind = Budget::Kind::kFlopFraction, .value = value}; }
Budget MaxFlops(uint64_t value) { return {.kind = Budget::Kind::kMaxFlops, .max_flops = value}; }

double Realised(const GenerationBudget& budget) {
  return double(budget.flops()) / double(budget.dense_flops());
}

SyntheticModel Model(double skew, double off) {
  SyntheticModel model{.cost = SmallGpt2Cost(), .calibration = {}, .skew = skew};
  model.calibration = CalibrationFor(model.cost, skew, off);
  return model;
}

TEST(GenerationSizeTest, CountsThePositionsOfGenerationAndScoring) {
  const GenerationSize generation{.prompt_tokens = 10, .max_new_tokens = 3};
  EXPECT_EQ(generation.All().tokens, 12u);
  EXPECT_EQ(generation.All().heads, 3u);
  EXPECT_EQ(generation.Least().tokens, 10u);
  EXPECT_EQ(generation.Least().heads, 1u);
  const GenerationSize scoring{.prompt_tokens = 10};
  EXPECT_EQ(scoring.All().tokens, 9u);
  EXPECT_EQ(scoring.All().heads, 9u);
  EXPECT_EQ(scoring.Least().tokens, 9u);
}

TEST(GenerationBudgetTest, AFixedTauHoldsForEveryTokenAndIsCountedExactly) {
  const SyntheticModel model = Model(8, 1);
  const GenerationSize size{.prompt_tokens = 100, .max_new_tokens = 50};
  for (const double tau : {0.0, 0.1, 1.0}) {
    GenerationRun run(model, Plan({.kind = Budget::Kind::kTau, .value = tau}, {}, model.cost, size),
                      size, 1);
    ASSERT_TRUE(run.Run(50));
    EXPECT_THAT(run.taus(), Each(tau));
    Usage usage;
    run.budget().Report(usage);
    EXPECT_EQ(usage.tau, tau);
    EXPECT_FALSE(usage.budget_clamped);
    uint64_t flops = model.cost.FixedFlops(size.All());
    for (size_t m = 0; m < model.cost.moe.size(); ++m) {
      flops += usage.layers[m].expert_runs * model.cost.moe[m].pair_flops;
      if (tau > 0) flops += size.All().tokens * model.cost.moe[m].router_flops;
    }
    EXPECT_EQ(usage.flops, flops);
    EXPECT_EQ(usage.dense_flops, model.cost.DenseFlops(size.All()));
    if (tau == 0) {
      EXPECT_EQ(usage.flops, usage.dense_flops);
    }
  }
}

struct SteeringCase {
  double skew, off;
};
class SteeringTest : public testing::TestWithParam<SteeringCase> {};

// From what the floor allows to nearly dense, short and long prompts, a calibration that is off.
TEST_P(SteeringTest, MeetsTheFractionAt128Tokens) {
  const SyntheticModel model = Model(GetParam().skew, GetParam().off);
  uint64_t seed = 0;
  for (const uint64_t prompt : {1, 20, 63, 64, 100, 129, 300}) {
    const GenerationSize size{.prompt_tokens = prompt, .max_new_tokens = 384};
    for (double asked = 0.56; asked < 0.995; asked += 0.02) {
      GenerationRun run(model, Plan(Fraction(asked), {}, model.cost, size), size, ++seed);
      ASSERT_TRUE(run.Run(128));
      EXPECT_NEAR(Realised(run.budget()) / asked, 1, 0.01)
          << "prompt " << prompt << ", asked " << asked;
      Usage usage;
      run.budget().Report(usage);
      EXPECT_FALSE(usage.budget_clamped) << "prompt " << prompt << ", asked " << asked;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Calibrations, SteeringTest,
                         testing::Values(SteeringCase{8, 1}, SteeringCase{8, 0.8},
                                         SteeringCase{8, 1.2}, SteeringCase{3, 0.8},
                                         SteeringCase{3, 1.2}, SteeringCase{30, 0.8},
                                         SteeringCase{30, 1.2}));

// Any proportions of layers, experts and routers, scores that vary more or less, a calibration that
// is off by up to 20%.
TEST(GenerationBudgetTest, MeetsTheFractionForRandomModels) {
  std::mt19937_64 random(21);
  const auto uniform = [&](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  double worst = 0;
  for (int trial = 0; trial < 400; ++trial) {
    CostModel cost{.token_flops = 1000 + random() % 100000,
                   .attention_flops = random() % 100,
                   .sequence_flops = random() % 100000,
                   .moe = {},
                   .causal = true};
    const size_t layers = 1 + random() % 12;
    for (uint32_t layer = 0; layer < layers; ++layer) {
      const auto experts = uint32_t(8 + random() % 57);
      const uint64_t pair = 50 + random() % 1000;
      cost.moe.push_back({.layer = layer,
                          .experts = experts,
                          .pair_flops = pair,
                          .router_flops = uint64_t(uniform(0, 0.2) * double(experts * pair))});
    }
    const double skew = uniform(2, 40);
    const SyntheticModel model{.cost = cost,
                               .calibration = CalibrationFor(cost, skew, uniform(0.8, 1.2)),
                               .skew = skew,
                               .spread = uniform(0, 0.5)};
    const GenerationSize size{.prompt_tokens = 1 + random() % 200, .max_new_tokens = 256};
    const CostBounds bounds(cost, 0, 1);
    // Of the new tokens: they all run the head, which the prompt's do not.
    const TokenSpan output{.first = size.prompt_tokens, .tokens = 256, .heads = 256};
    const double floor = double(bounds.FloorFlops(cost, output)) / double(cost.DenseFlops(output));
    if (floor > 0.9) continue;
    const double asked = uniform(floor + 0.02, 1);
    GenerationRun run(model, Plan(Fraction(asked), {}, cost, size), size, random());
    ASSERT_TRUE(run.Run(128 + random() % 128));
    const double error = Realised(run.budget()) / asked - 1;
    worst = std::max(worst, std::abs(error));
    EXPECT_NEAR(error, 0, 0.01) << "trial " << trial << ", asked " << asked << ", floor " << floor;
  }
  RecordProperty("worst_error", std::to_string(worst));
}

TEST(GenerationBudgetTest, SteersWithoutACalibration) {
  SyntheticModel model = Model(8, 1);
  model.calibration = {};
  const GenerationSize size{.prompt_tokens = 30, .max_new_tokens = 200};
  for (const double asked : {0.6, 0.7, 0.8, 0.9}) {
    GenerationRun run(model, Plan(Fraction(asked), {}, model.cost, size), size, 3);
    ASSERT_TRUE(run.Run(200));
    EXPECT_NEAR(Realised(run.budget()) / asked, 1, 0.01) << asked;
  }
}

// Between the dense path and what every tau above it runs, nothing: the mean is met all the same.
TEST(GenerationBudgetTest, MeetsAFractionThatNoTauRunsAt) {
  const SyntheticModel model{.cost = SmallGpt2Cost(),
                             .calibration = CalibrationFor(SmallGpt2Cost(), 500, 1),
                             .skew = 500,
                             .spread = 0};
  const GenerationSize size{.prompt_tokens = 20, .max_new_tokens = 200};
  for (const double asked : {0.7, 0.8, 0.9, 0.95}) {
    GenerationRun run(model, Plan(Fraction(asked), {}, model.cost, size), size, 5);
    ASSERT_TRUE(run.Run(128));
    EXPECT_NEAR(Realised(run.budget()) / asked, 1, 0.01) << asked;
  }
}

TEST(GenerationBudgetTest, IsDeterministic) {
  const SyntheticModel model = Model(8, 1.2);
  const GenerationSize size{.prompt_tokens = 70, .max_new_tokens = 100};
  const ComputePlan plan = Plan(Fraction(0.7), {}, model.cost, size);
  GenerationRun one(model, plan, size, 9), two(model, plan, size, 9);
  ASSERT_TRUE(one.Run(100));
  ASSERT_TRUE(two.Run(100));
  EXPECT_EQ(one.taus(), two.taus());
  EXPECT_GT(*std::max_element(one.taus().begin(), one.taus().end()),
            *std::min_element(one.taus().begin(), one.taus().end()));
}

TEST(GenerationBudgetTest, HonoursTheBoundsAndSaysSo) {
  const SyntheticModel model = Model(8, 1);
  const GenerationSize size{.prompt_tokens = 70, .max_new_tokens = 128};
  struct Case {
    double asked, min_tau, max_tau;
    bool clamped;
  };
  for (const Case& test : std::vector<Case>{{0.9, 0.3, 1, true},
                                            {0.6, 0, 0.05, true},
                                            {0.95, 0, 0.05, false},
                                            {0.02, 0, 1, true},
                                            {0.7, 0, 1, false}}) {
    GenerationRun run(model,
                      Plan(Fraction(test.asked), {.min_tau = test.min_tau, .max_tau = test.max_tau},
                           model.cost, size),
                      size, 2);
    ASSERT_TRUE(run.Run(128));
    for (const double tau : run.taus()) {
      EXPECT_GE(tau, test.min_tau);
      EXPECT_LE(tau, test.max_tau);
    }
    Usage usage;
    run.budget().Report(usage);
    EXPECT_EQ(usage.budget_clamped, test.clamped) << test.asked;
  }
}

TEST(GenerationBudgetTest, AModelWithoutExpertsIsClamped) {
  CostModel cost = SmallGpt2Cost();
  cost.moe.clear();
  const GenerationSize size{.prompt_tokens = 5, .max_new_tokens = 5};
  EXPECT_TRUE(Plan(Fraction(0.5), {}, cost, size).clamped);
  EXPECT_FALSE(Plan(Fraction(1), {}, cost, size).clamped);
  EXPECT_TRUE(Plan(Fraction(0.5), {.max_tau = 0}, SmallGpt2Cost(), size).clamped);
}

TEST(GenerationBudgetTest, MaxFlopsIsSpentOnAllTokens) {
  const SyntheticModel model = Model(8, 1.2);
  const GenerationSize size{.prompt_tokens = 50, .max_new_tokens = 150};
  const uint64_t dense = model.cost.DenseFlops(size.All());
  for (const double share : {0.6, 0.7, 0.8, 0.9}) {
    const auto max_flops = uint64_t(share * double(dense));
    GenerationRun run(model, Plan(MaxFlops(max_flops), {}, model.cost, size), size, 4);
    EXPECT_TRUE(run.Run(150)) << share;
    EXPECT_LE(run.budget().flops(), max_flops);
    EXPECT_GE(double(run.budget().flops()), 0.99 * double(max_flops)) << share;
  }
}

TEST(GenerationBudgetTest, MaxFlopsBelowTheFloorOfAllEndsEarly) {
  const SyntheticModel model = Model(8, 1);
  const GenerationSize size{.prompt_tokens = 50, .max_new_tokens = 150};
  const uint64_t max_flops = model.cost.DenseFlops(size.All()) / 4;
  GenerationRun run(model, Plan(MaxFlops(max_flops), {}, model.cost, size), size, 4);
  EXPECT_FALSE(run.Run(150));
  EXPECT_TRUE(run.status().ok());
  EXPECT_GE(run.new_tokens(), 1u);
  EXPECT_LT(run.new_tokens(), 149u);
  EXPECT_LE(run.budget().flops(), max_flops);
}

TEST(GenerationBudgetTest, MaxFlopsMustPayThePromptAndOneToken) {
  const CostModel cost = SmallGpt2Cost();
  const GenerationSize size{.prompt_tokens = 100, .max_new_tokens = 100};
  const CostBounds bounds(cost, 0, 1);
  const uint64_t floor = bounds.FloorFlops(cost, {.first = 0, .tokens = 100, .heads = 1});
  const auto refused = PlanGeneration(MaxFlops(floor - 1), {}, cost, size);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr(fmt::format("max_flops {} is below the floor of this call: {} FLOPs for a "
                                    "prompt of 100 tokens and one new one",
                                    floor - 1, floor)));
  SyntheticModel model = Model(8, 0.5);
  model.cost = cost;
  GenerationRun run(model, Plan(MaxFlops(floor), {}, cost, size), size, 1);
  EXPECT_FALSE(run.Run(100));
  EXPECT_EQ(run.new_tokens(), 1u);
  EXPECT_EQ(run.budget().flops(), floor);
}

TEST(GenerationBudgetTest, AMaxFlopsThatMaxTauExcludesIsRefusedWithNumbers) {
  const SyntheticModel model = Model(1, 1);  // at max_tau 0.1, nine in ten experts must run
  const GenerationSize size{.prompt_tokens = 30, .max_new_tokens = 10};
  const TauSettings settings{.min_tau = 0, .max_tau = 0.1};
  const CostBounds bounds(model.cost, 0, 0.1);
  const uint64_t max_flops = bounds.FloorFlops(model.cost, size.Least()) + 1000;
  GenerationRun run(model, Plan(MaxFlops(max_flops), settings, model.cost, size), size, 1);
  EXPECT_FALSE(run.Run(10));
  EXPECT_EQ(run.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(run.status().message()),
              HasSubstr("is below the floor that max_tau 0.1 sets: after"));
  EXPECT_LE(run.budget().flops(), max_flops);
}

CostModel RandomCost(std::mt19937_64& random) {
  CostModel cost{.token_flops = random() % 500,
                 .attention_flops = random() % 5,
                 .sequence_flops = random() % 3000,
                 .moe = {},
                 .causal = true};
  const size_t modules = random() % 8;
  for (size_t i = 0; i < modules; ++i) {
    cost.moe.push_back({.layer = uint32_t(i),
                        .experts = uint32_t(1 + random() % 16),
                        .pair_flops = 1 + random() % 1000,
                        .router_flops = random() % 600});
  }
  return cost;
}

TEST(GenerationBudgetTest, MaxFlopsIsNeverExceededWhateverTheScores) {
  std::mt19937_64 random(11);
  int cut_short = 0, given_up = 0, complete = 0;
  for (int trial = 0; trial < 5000; ++trial) {
    const double skew = double(1 + random() % 30) / 2;
    SyntheticModel model{.cost = RandomCost(random), .calibration = {}, .skew = skew};
    if (random() % 4 != 0) {
      model.calibration = CalibrationFor(model.cost, skew, double(2 + random() % 30) / 10);
    }
    const GenerationSize size{.prompt_tokens = 1 + random() % 90,
                              .max_new_tokens = 1 + random() % 30};
    const TauSettings settings{.min_tau = random() % 3 == 0 ? 0.1 : 0,
                               .max_tau = random() % 4 == 0 ? 0.2 : 1};
    const CostBounds bounds(model.cost, settings.min_tau, settings.max_tau);
    const uint64_t floor = bounds.FloorFlops(model.cost, size.Least());
    const uint64_t max_flops = floor + random() % (model.cost.DenseFlops(size.All()) + 1);
    const auto plan = PlanGeneration(MaxFlops(max_flops), settings, model.cost, size);
    ASSERT_TRUE(plan.ok()) << plan.status();
    GenerationRun run(model, *plan, size, random());
    if (run.Run(size.max_new_tokens)) {
      ++complete;
    } else if (run.status().ok()) {
      ++cut_short;
      ASSERT_GE(run.new_tokens(), 1u);  // the prompt and one token are always paid
    } else {
      ++given_up;
      ASSERT_LT(settings.max_tau, 1);
    }
    ASSERT_LE(run.budget().flops(), max_flops);
    Usage usage;
    run.budget().Report(usage);
    ASSERT_EQ(usage.flops, run.budget().flops());
  }
  EXPECT_GT(complete, 500);
  EXPECT_GT(cut_short, 500);
  EXPECT_GT(given_up, 20);
}

TEST(GenerationBudgetTest, ScoringIsSteeredAndCounted) {
  const SyntheticModel model = Model(8, 1.2);
  const GenerationSize size{.prompt_tokens = 257};
  GenerationRun run(model, Plan(Fraction(0.7), {}, model.cost, size), size, 6);
  ASSERT_TRUE(run.Score());
  EXPECT_EQ(run.budget().dense_flops(), model.cost.DenseFlops(size.All()));
  EXPECT_NEAR(Realised(run.budget()) / 0.7, 1, 0.01);
}

}  // namespace
}  // namespace dimmer
