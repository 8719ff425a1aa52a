#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <random>

#include "engine/budget/budget.h"
#include "tests/budget/test_cost.h"

namespace dimmer {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using Kind = Budget::Kind;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

ComputePlan PlanOne(Budget budget, const TauSettings& settings, const CostModel& cost = SmallCost(),
                    uint32_t tokens = 10, const Calibration& calibration = {}) {
  const auto plans = PlanCall(budget, settings, cost, calibration, std::vector<uint32_t>{tokens});
  EXPECT_TRUE(plans.ok()) << plans.status();
  return plans.ok() ? plans->at(0) : ComputePlan{};
}

TEST(ValidateBudgetTest, NamesTheFieldAndTheRange) {
  struct Case {
    Budget budget;
    absl::StatusCode code;
    const char* message;
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  for (const Case& c : std::initializer_list<Case>{
           {{Kind::kDefault, kNan}, absl::StatusCode::kOk, ""},
           {{Kind::kTau, 0}, absl::StatusCode::kOk, ""},
           {{Kind::kTau, 1}, absl::StatusCode::kOk, ""},
           {{Kind::kTau, -0.1}, invalid, "budget.tau: found -0.1, expected a number in [0, 1]"},
           {{Kind::kTau, 2}, invalid, "budget.tau: found 2"},
           {{Kind::kTau, kNan}, invalid, "budget.tau: found nan"},
           {{Kind::kTau, kInf}, invalid, "budget.tau: found inf"},
           {{Kind::kFlopFraction, 1e-9}, absl::StatusCode::kOk, ""},
           {{Kind::kFlopFraction, 1}, absl::StatusCode::kOk, ""},
           {{Kind::kFlopFraction, 0},
            invalid,
            "budget.flop_fraction: found 0, expected a number in (0, 1]"},
           {{Kind::kFlopFraction, 1.01}, invalid, "budget.flop_fraction"},
           {{Kind::kFlopFraction, kNan}, invalid, "budget.flop_fraction"},
           {{Kind::kMaxFlops, 0, 1}, absl::StatusCode::kOk, ""},
           {{Kind::kMaxFlops, 0, 0}, invalid, "budget.max_flops: found 0"},
           {{Kind::kMinQuality, 0.9}, absl::StatusCode::kUnimplemented, "min_quality"}}) {
    const absl::Status status = ValidateBudget(c.budget);
    EXPECT_EQ(status.code(), c.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST(PlanCallTest, RefusesWhatValidateBudgetRefuses) {
  const std::vector<uint32_t> tokens = {10};
  EXPECT_EQ(PlanCall({Kind::kTau, kNan}, {}, SmallCost(), {}, tokens).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PlanCall({Kind::kMinQuality, 1}, {}, SmallCost(), {}, tokens).status().code(),
            absl::StatusCode::kUnimplemented);
}

TEST(PlanCallTest, DefaultTakesLayerTauWithinTheBounds) {
  TauSettings settings{.default_tau = 0.2};
  EXPECT_THAT(PlanOne({}, settings).module_tau, ElementsAre(0.2, 0.2));
  settings.layer_tau = {-1, 0.4};
  EXPECT_THAT(PlanOne({}, settings).module_tau, ElementsAre(0.2, 0.4));
  settings.layer_tau = {0, -1};
  EXPECT_THAT(PlanOne({}, settings).module_tau, ElementsAre(0, 0.2));
  settings.min_tau = 0.1;
  settings.max_tau = 0.15;
  EXPECT_THAT(PlanOne({}, settings).module_tau, ElementsAre(0.1, 0.15));
  EXPECT_FALSE(PlanOne({}, settings).clamped);
}

TEST(PlanCallTest, AskedTauReplacesLayerTauAndIsClamped) {
  const TauSettings settings{
      .default_tau = 0.2, .min_tau = 0.1, .max_tau = 0.5, .layer_tau = {0.3, 0.4}};
  struct Case {
    double asked, tau;
    bool clamped;
  };
  for (const Case& c : {Case{0.3, 0.3, false},
                        {0.1, 0.1, false},
                        {0.5, 0.5, false},
                        {0, 0.1, true},
                        {1, 0.5, true}}) {
    const ComputePlan plan = PlanOne({Kind::kTau, c.asked}, settings);
    EXPECT_EQ(plan.kind, ComputePlan::Kind::kTau);
    EXPECT_THAT(plan.module_tau, ElementsAre(c.tau, c.tau));
    EXPECT_EQ(plan.clamped, c.clamped) << c.asked;
  }
}

TEST(PlanCallTest, TauZeroIsDense) {
  EXPECT_TRUE(PlanOne({Kind::kTau, 0}, {}).dense());
  EXPECT_FALSE(PlanOne({Kind::kTau, 0.01}, {}).dense());
  EXPECT_FALSE(PlanOne({Kind::kTau, 0}, {.min_tau = 0.1}).dense());
  EXPECT_FALSE(PlanOne({Kind::kFlopFraction, 0.9}, {}).dense());
  EXPECT_TRUE(ComputePlan{}.dense());
}

TEST(PlanCallTest, PlainCheckpointAlwaysRunsDense) {
  const CostModel plain{.token_flops = 100, .attention_flops = 2, .sequence_flops = 7, .moe = {}};
  struct Case {
    Budget budget;
    bool clamped;
  };
  for (const Case& c :
       std::initializer_list<Case>{{{Kind::kDefault}, false},
                                   {{Kind::kTau, 0}, false},
                                   {{Kind::kTau, 0.1}, true},
                                   {{Kind::kFlopFraction, 1}, false},
                                   {{Kind::kFlopFraction, 0.9999999999999999}, true},
                                   {{Kind::kFlopFraction, 0.1}, true},
                                   {{Kind::kMaxFlops, 0, 1207}, false},
                                   {{Kind::kMaxFlops, 0, ~0ull}, false}}) {
    const ComputePlan plan = PlanOne(c.budget, {.min_tau = 0, .max_tau = 1}, plain);
    EXPECT_TRUE(plan.dense());
    EXPECT_EQ(plan.clamped, c.clamped) << int(c.budget.kind) << " " << c.budget.value;
  }
  const std::vector<uint32_t> tokens = {10};
  const absl::Status status = PlanCall({Kind::kMaxFlops, 0, 1206}, {}, plain, {}, tokens).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("max_flops 1206 is below the floor of this call: 1207 FLOPs for 1 text of "
                        "10 tokens (the model has no experts"));
}

TEST(PlanCallTest, FlopFractionIsAShareOfThatSequencesDenseFlops) {
  struct Case {
    double fraction;
    uint64_t target;
    bool clamped;
  };
  for (const Case& c : {Case{0.8, 2086, false}, Case{0.999, 2604, false}, Case{0.5973, 1557, false},
                        Case{0.5, 1557, true}, Case{1e-9, 1557, true}}) {
    const ComputePlan plan = PlanOne({Kind::kFlopFraction, c.fraction}, {.max_tau = 0.7});
    EXPECT_EQ(plan.kind, ComputePlan::Kind::kQuota);
    EXPECT_EQ(plan.target_flops, c.target) << c.fraction;
    EXPECT_EQ(plan.clamped, c.clamped) << c.fraction;
    EXPECT_FALSE(plan.hard);
    EXPECT_EQ(plan.min_tau, 0);
    EXPECT_EQ(plan.max_tau, 0.7);
    EXPECT_THAT(plan.module_weight, ElementsAre(8, 4)) << "uniform without a calibration";
  }
}

TEST(PlanCallTest, WholeFlopFractionIsDenseUnlessTheOperatorForbids) {
  EXPECT_TRUE(PlanOne({Kind::kFlopFraction, 1}, {.default_tau = 0.3}).dense());
  const ComputePlan bounded = PlanOne({Kind::kFlopFraction, 1}, {.min_tau = 0.2});
  EXPECT_THAT(bounded.module_tau, ElementsAre(0.2, 0.2));
  EXPECT_TRUE(bounded.clamped);
  const ComputePlan forced = PlanOne({Kind::kFlopFraction, 0.8}, {.max_tau = 0});
  EXPECT_TRUE(forced.dense());
  EXPECT_TRUE(forced.clamped);
}

TEST(PlanCallTest, RoutersWiderThanTheirExpertsMakeDenseTheFloor) {
  CostModel cost = SmallCost();
  for (MoeCost& module : cost.moe) module.router_flops = 1000;
  const ComputePlan plan = PlanOne({Kind::kFlopFraction, 0.5}, {}, cost);
  EXPECT_TRUE(plan.dense());
  EXPECT_TRUE(plan.clamped);
  EXPECT_TRUE(PlanOne({Kind::kMaxFlops, 0, 2607}, {}, cost).dense());
  EXPECT_EQ(
      PlanCall({Kind::kMaxFlops, 0, 2606}, {}, cost, {}, std::vector<uint32_t>{10}).status().code(),
      absl::StatusCode::kFailedPrecondition);
}

TEST(PlanCallTest, WeightsComeFromTheCalibration) {
  const Calibration calibration = MiniLmCalibration();
  const ComputePlan plan = PlanOne({Kind::kFlopFraction, 0.472}, {}, MiniLmCost(), 22, calibration);
  ASSERT_EQ(plan.module_weight.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_NEAR(plan.module_weight[i], calibration.points[2].experts_run[i], 0.1);
  }
  Calibration other = calibration;  // of another number of modules: not usable
  for (CalibrationPoint& point : other.points) point.experts_run.pop_back();
  EXPECT_THAT(PlanOne({Kind::kFlopFraction, 0.5}, {}, MiniLmCost(), 22, other).module_weight,
              Each(96));
}

TEST(PlanCallTest, MaxFlopsNamesTheFloorItCannotReach) {
  const std::vector<uint32_t> tokens = {10, 10};
  const absl::Status status =
      PlanCall({Kind::kMaxFlops, 0, 1}, {}, SmallCost(), {}, tokens).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "max_flops 1 is below the floor of this call: 3114 FLOPs for 2 texts of 20 tokens");
  EXPECT_TRUE(PlanCall({Kind::kMaxFlops, 0, 3114}, {}, SmallCost(), {}, tokens).ok());
  EXPECT_FALSE(PlanCall({Kind::kMaxFlops, 0, 3113}, {}, SmallCost(), {}, tokens).ok());

  const absl::Status dense =
      PlanCall({Kind::kMaxFlops, 0, 5213}, {.max_tau = 0}, SmallCost(), {}, tokens).status();
  EXPECT_EQ(dense.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(dense.message()), HasSubstr("max_tau of 0"));
}

TEST(PlanCallTest, MaxFlopsRunsDenseWhereItFits) {
  EXPECT_TRUE(PlanOne({Kind::kMaxFlops, 0, 2607}, {.default_tau = 0.5}).dense());
  EXPECT_FALSE(PlanOne({Kind::kMaxFlops, 0, 2606}, {}).dense());
  // Under min_tau routers run beside up to all experts: 2707 FLOPs in the worst case.
  const ComputePlan fits = PlanOne({Kind::kMaxFlops, 0, 2707}, {.min_tau = 0.1});
  EXPECT_THAT(fits.module_tau, ElementsAre(0.1, 0.1));
  EXPECT_TRUE(fits.clamped);
  const ComputePlan capped = PlanOne({Kind::kMaxFlops, 0, 2706}, {.min_tau = 0.1});
  EXPECT_EQ(capped.kind, ComputePlan::Kind::kQuota);
  EXPECT_TRUE(capped.hard);
  EXPECT_EQ(capped.min_tau, 0.1);
  EXPECT_EQ(capped.target_flops, 2706u);
}

uint64_t Target(const ComputePlan& plan, const CostModel& cost, uint64_t tokens) {
  return plan.dense() ? cost.DenseFlops(tokens) : plan.target_flops;
}

TEST(PlanCallTest, MaxFlopsIsSharedOutWhollyAndInProportion) {
  std::mt19937_64 random(1);
  const CostModel cost = MiniLmCost();
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<uint32_t> tokens(1 + random() % 9);
    uint64_t floor = 0, dense = 0;
    for (uint32_t& count : tokens) {
      count = 2 + random() % 511;
      floor += cost.FloorFlops(count);
      dense += cost.DenseFlops(count);
    }
    const uint64_t max_flops = floor + random() % (dense - floor + dense / 10);
    const auto plans = PlanCall({Kind::kMaxFlops, 0, max_flops}, {}, cost, {}, tokens);
    ASSERT_TRUE(plans.ok()) << plans.status();
    const uint64_t all_tokens = std::accumulate(tokens.begin(), tokens.end(), uint64_t{0});
    uint64_t sum = 0;
    double open_rate = -1;  // FLOPs per token of those between floor and dense
    for (size_t i = 0; i < tokens.size(); ++i) {
      const uint64_t target = Target((*plans)[i], cost, tokens[i]);
      ASSERT_GE(target, cost.FloorFlops(tokens[i]));
      ASSERT_LE(target, cost.DenseFlops(tokens[i]));
      EXPECT_FALSE((*plans)[i].clamped);
      sum += target;
      const uint64_t per_token = target / tokens[i];
      // Less than a FLOP per token of the call is left over, and goes to the first.
      const bool at_floor = target <= cost.FloorFlops(tokens[i]) + all_tokens;
      if ((*plans)[i].dense() || at_floor) continue;
      if (open_rate < 0) open_rate = double(per_token);
      EXPECT_NEAR(double(per_token), open_rate, double(all_tokens) / tokens[0] + 1);
    }
    EXPECT_EQ(sum, std::min(max_flops, dense));
  }
}

TEST(PlanCallTest, EqualTextsGetEqualShares) {
  const std::vector<uint32_t> tokens(7, 22);
  const CostModel cost = MiniLmCost();
  const uint64_t max_flops = 7 * cost.DenseFlops(22) / 2;
  const auto plans = PlanCall({Kind::kMaxFlops, 0, max_flops}, {}, cost, {}, tokens);
  ASSERT_TRUE(plans.ok());
  for (const ComputePlan& plan : *plans) {
    EXPECT_NEAR(double(plan.target_flops), double(max_flops) / 7, 7 * 22);
  }
}

}  // namespace
}  // namespace dimmer
