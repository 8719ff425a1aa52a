#include "engine/budget/cost_model.h"

#include <gtest/gtest.h>

#include "tests/budget/test_cost.h"

namespace dimmer {
namespace {

TEST(CostModelTest, CountsByHand) {
  const CostModel cost = SmallCost();
  EXPECT_EQ(cost.FixedFlops(10), 1207u);
  EXPECT_EQ(cost.DenseFlops(10), 2607u);
  EXPECT_EQ(cost.FloorFlops(10), 1557u);
}

TEST(CostModelTest, CountsRunsAndRoutersThatRan) {
  const CostModel cost = SmallCost();
  struct Case {
    uint64_t runs[2];
    bool routed[2];
    uint64_t flops;
  };
  for (const Case& c : {Case{{80, 40}, {false, false}, 2607}, Case{{10, 10}, {true, true}, 1557},
                        Case{{30, 40}, {true, false}, 1207 + 300 + 40 + 600},
                        Case{{0, 0}, {false, true}, 1207 + 60}}) {
    EXPECT_EQ(cost.Flops(10, c.runs, c.routed), c.flops);
  }
}

TEST(CostModelTest, WithoutExpertsEverythingIsFixed) {
  const CostModel cost{.token_flops = 5, .attention_flops = 1, .sequence_flops = 2, .moe = {}};
  EXPECT_EQ(cost.FixedFlops(3), 15u + 9 + 2);
  EXPECT_EQ(cost.DenseFlops(3), cost.FixedFlops(3));
  EXPECT_EQ(cost.FloorFlops(3), cost.FixedFlops(3));
  EXPECT_EQ(cost.Flops(3, {}, {}), cost.FixedFlops(3));
}

TEST(CostModelTest, LongSequencesDoNotOverflow) {
  const CostModel cost{.token_flops = 1ull << 38, .attention_flops = 1ull << 18, .moe = {}};
  EXPECT_EQ(cost.FixedFlops(1u << 20), (1ull << 58) + (1ull << 58));
}

TEST(CostModelTest, ACausalSequenceIsTheSumOfItsParts) {
  CostModel cost = SmallCost();
  cost.causal = true;
  // 10 tokens: 1000 + 2 x (1 + ... + 10) + one head.
  EXPECT_EQ(cost.FixedFlops(10), 1000u + 110 + 7);
  EXPECT_EQ(cost.DenseFlops(10), 1000u + 110 + 7 + 1400);
  EXPECT_EQ(cost.FloorFlops(10), 1000u + 110 + 7 + 100 + 250);
  const TokenSpan prompt{.first = 0, .tokens = 6, .heads = 0};
  const TokenSpan rest{.first = 6, .tokens = 4, .heads = 1};
  EXPECT_EQ(cost.FixedFlops(prompt) + cost.FixedFlops(rest), cost.FixedFlops(10));
  EXPECT_EQ(cost.DenseFlops(prompt) + cost.DenseFlops(rest), cost.DenseFlops(10));
  EXPECT_EQ(cost.FixedFlops({.first = 6, .tokens = 4, .heads = 4}),
            cost.FixedFlops(rest) + 3 * cost.sequence_flops);
}

}  // namespace
}  // namespace dimmer
