#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "engine/budget/budget.h"
#include "tests/budget/test_cost.h"

namespace dimmer {
namespace {

ComputePlan Quota(uint64_t target, bool hard, std::vector<double> weight) {
  ComputePlan plan;
  plan.kind = ComputePlan::Kind::kQuota;
  plan.target_flops = target;
  plan.hard = hard;
  plan.module_weight = std::move(weight);
  return plan;
}

// FLOPs of a walk in which module i runs run(i, pairs allowed).
template <typename Run>
uint64_t Walk(const ComputePlan& plan, const CostModel& cost, uint32_t tokens, Run run) {
  QuotaController controller(plan, cost, tokens);
  uint64_t flops = cost.FixedFlops(tokens);
  for (size_t i = 0; i < cost.moe.size(); ++i) {
    const uint64_t allowed = controller.PairsFor(i);
    EXPECT_GE(allowed, tokens);
    EXPECT_LE(allowed, uint64_t{tokens} * cost.moe[i].experts);
    const uint64_t pairs = run(i, allowed);
    controller.Spend(i, pairs);
    const bool routed = allowed < uint64_t{tokens} * cost.moe[i].experts || plan.min_tau > 0;
    flops += pairs * cost.moe[i].pair_flops + (routed ? tokens * cost.moe[i].router_flops : 0);
  }
  return flops;
}

uint64_t Obey(size_t, uint64_t allowed) { return allowed; }

TEST(QuotaControllerTest, DealsOutByHand) {
  // 10 tokens: 1307 for fixed parts and routers; modules of 8 x 10 and 4 x 15 FLOPs per token.
  struct Case {
    uint64_t target;
    std::vector<double> weight;
    uint64_t first, second;
  };
  for (const Case& c : std::initializer_list<Case>{
           {1307 + 1400, {8, 4}, 80, 40},  // everything
           {1307 + 700, {8, 4}, 40, 20},   // half of each
           {1307 + 700, {2, 4}, 18, 35},   // 10 x 2s + 15 x 4s = 70: s = .875
           {1307 + 1000, {2, 4}, 40, 40},  // the second is full: the first takes the rest
           {1307 + 250, {8, 4}, 10, 10},   // the floor
           {1307 + 260, {8, 4}, 11, 10},   // 8s = 1.1: the second stays at its floor
           {500, {8, 4}, 10, 10},          // never below one expert per token
           {99999, {8, 4}, 80, 40}}) {     // never above all
    const ComputePlan plan = Quota(c.target, false, c.weight);
    const CostModel cost = SmallCost();
    QuotaController controller(plan, cost, 10);
    EXPECT_EQ(controller.PairsFor(0), c.first) << c.target;
    controller.Spend(0, c.first);
    EXPECT_EQ(controller.PairsFor(1), c.second) << c.target;
  }
}

TEST(QuotaControllerTest, CarriesOverWhatAModuleLeavesOrOverdraws) {
  const ComputePlan plan = Quota(1307 + 700, false, {8, 4});
  const CostModel cost = SmallCost();
  QuotaController thrifty(plan, cost, 10);
  thrifty.Spend(0, 25);
  EXPECT_EQ(thrifty.PairsFor(1), 30u);
  QuotaController greedy(plan, cost, 10);
  greedy.Spend(0, 52);
  EXPECT_EQ(greedy.PairsFor(1), 12u);
  QuotaController broke(plan, cost, 10);
  broke.Spend(0, 80);
  EXPECT_EQ(broke.PairsFor(1), 10u);
}

// What may be left over: less than a pair, and, where the last module runs whole, the router that
// it turns out not to need.
uint64_t Slack(const ComputePlan& plan, const CostModel& cost, uint32_t tokens) {
  const MoeCost& last = cost.moe.back();
  const bool nearly_dense = plan.target_flops * 10 > cost.DenseFlops(tokens) * 8;
  return last.pair_flops + (nearly_dense ? tokens * last.router_flops : 0);
}

TEST(QuotaControllerTest, AWholeModuleRunsWithoutItsRouter) {
  const CostModel cost = SmallCost();
  const ComputePlan plan = Quota(1307 + 1000, true, {2, 4});
  QuotaController controller(plan, cost, 10);
  ASSERT_EQ(controller.PairsFor(0), 40u);
  controller.Spend(0, 40);
  EXPECT_EQ(controller.PairsFor(1), 40u);
  // Module 0 whole and the router's 40 FLOPs saved: module 1 has 200 + 40 for 16 pairs of 15.
  const ComputePlan first_whole = Quota(1307 + 1000, true, {8, 1});
  QuotaController saver(first_whole, cost, 10);
  ASSERT_EQ(saver.PairsFor(0), 80u);
  saver.Spend(0, 80);
  EXPECT_EQ(saver.PairsFor(1), 16u);
  // Under min_tau the router chooses among all: nothing is saved.
  ComputePlan bounded = first_whole;
  bounded.min_tau = 0.1;
  QuotaController chooser(bounded, cost, 10);
  chooser.Spend(0, 80);
  EXPECT_EQ(chooser.PairsFor(1), 13u);
}

TEST(QuotaControllerTest, SoftQuotaLandsWithinOnePair) {
  const CostModel cost = MiniLmCost();
  const Calibration calibration = MiniLmCalibration();
  for (uint32_t tokens : {2u, 7u, 22u, 512u}) {
    for (double fraction = 0.4; fraction < 1; fraction += 0.0123) {
      const std::vector<uint32_t> one = {tokens};
      const auto plans =
          PlanCall({Budget::Kind::kFlopFraction, fraction}, {}, cost, calibration, one);
      ASSERT_TRUE(plans.ok());
      const ComputePlan& plan = plans->front();
      const uint64_t flops = Walk(plan, cost, tokens, Obey);
      EXPECT_LE(flops, plan.target_flops + cost.moe[0].pair_flops) << tokens << ", " << fraction;
      EXPECT_GE(flops + Slack(plan, cost, tokens), plan.target_flops) << tokens << ", " << fraction;
    }
  }
}

// A gate over random scores that keeps the `allowed` best pairs, at least each token's best, and
// sometimes fewer, as under the operator's min_tau.
uint64_t RandomGate(std::mt19937_64& random, uint64_t allowed, uint32_t tokens, uint32_t experts,
                    double min_tau) {
  std::vector<double> ratios;
  for (uint32_t t = 0; t < tokens; ++t) {
    std::vector<double> scores(experts);
    const double skew = 1 + double(random() % 50) / 10;
    for (double& score : scores) score = std::pow(double(random() % 1000) / 1000, skew);
    const double max = std::max(1e-9, *std::max_element(scores.begin(), scores.end()));
    for (const double score : scores) ratios.push_back(score / max);
  }
  std::sort(ratios.rbegin(), ratios.rend());
  const uint64_t willing =
      std::count_if(ratios.begin(), ratios.end(), [&](double r) { return r >= min_tau; });
  return std::min<uint64_t>(allowed, std::max<uint64_t>(willing, tokens));
}

TEST(QuotaControllerTest, HardQuotaIsNeverExceededWhateverTheScores) {
  std::mt19937_64 random(7);
  for (int trial = 0; trial < 400; ++trial) {
    CostModel cost{.token_flops = random() % 500, .attention_flops = random() % 5, .moe = {}};
    const size_t modules = 1 + random() % 12;
    Calibration calibration{.metric = "accuracy", .points = {{.tau = 0}, {.tau = 1}}};
    for (size_t i = 0; i < modules; ++i) {
      const auto experts = static_cast<uint32_t>(1 + random() % 32);
      cost.moe.push_back({.layer = uint32_t(i),
                          .experts = experts,
                          .pair_flops = 1 + random() % 1000,
                          .router_flops = random() % 300});
      calibration.points[0].experts_run.push_back(experts);
      calibration.points[1].experts_run.push_back(double(random() % 1000) / 500);
    }
    calibration.points[1].flop_fraction = 0.3;

    std::vector<uint32_t> tokens(1 + random() % 5);
    uint64_t floor = 0, dense = 0;
    for (uint32_t& count : tokens) {
      count = 1 + random() % 30;
      floor += std::min(cost.FloorFlops(count), cost.DenseFlops(count));
      dense += cost.DenseFlops(count);
    }
    const uint64_t max_flops = floor + random() % (dense + 1);
    const double min_tau = random() % 2 == 0 ? 0 : 0.2;
    const auto plans = PlanCall({.kind = Budget::Kind::kMaxFlops, .max_flops = max_flops},
                                {.min_tau = min_tau}, cost, calibration, tokens);
    if (!plans.ok()) {  // with the dense path closed the floor can be higher
      EXPECT_GT(min_tau, 0);
      continue;
    }
    uint64_t executed = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      const ComputePlan& plan = (*plans)[i];
      if (plan.kind == ComputePlan::Kind::kTau) {
        executed += cost.DenseFlops(tokens[i]);
        for (const MoeCost& module : cost.moe) {
          if (!plan.dense()) executed += tokens[i] * module.router_flops;
        }
        continue;
      }
      const bool lazy = random() % 4 == 0;
      executed += Walk(plan, cost, tokens[i], [&](size_t m, uint64_t allowed) {
        return RandomGate(random, allowed, tokens[i], cost.moe[m].experts, lazy ? 0.5 : min_tau);
      });
    }
    ASSERT_LE(executed, max_flops);
  }
}

TEST(QuotaControllerTest, HardQuotaIsFilled) {
  const CostModel cost = MiniLmCost();
  for (double fraction = 0.38; fraction < 0.99; fraction += 0.01) {
    const auto max_flops = uint64_t(fraction * double(cost.DenseFlops(22)));
    const auto plans = PlanCall({.kind = Budget::Kind::kMaxFlops, .max_flops = max_flops}, {}, cost,
                                MiniLmCalibration(), std::vector<uint32_t>{22});
    ASSERT_TRUE(plans.ok()) << plans.status();
    const uint64_t executed = Walk(plans->front(), cost, 22, Obey);
    EXPECT_LE(executed, max_flops);
    EXPECT_GE(executed + Slack(plans->front(), cost, 22), max_flops);
  }
}

}  // namespace
}  // namespace dimmer
