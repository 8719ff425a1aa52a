// Cost models and calibrations for the budget tests.
#ifndef DIMMER_TESTS_BUDGET_TEST_COST_H_
#define DIMMER_TESTS_BUDGET_TEST_COST_H_

#include "engine/budget/calibration.h"
#include "engine/budget/cost_model.h"

namespace dimmer {

// Two MoE modules of different sizes. For 10 tokens: fixed 1000 + 200 + 7 = 1207, routers 10 x 10,
// experts 10 x (80 + 60), dense 2607, floor 1207 + 100 + 10 x (10 + 15) = 1557.
inline CostModel SmallCost() {
  return {.token_flops = 100,
          .attention_flops = 2,
          .sequence_flops = 7,
          .moe = {{.layer = 0, .experts = 8, .pair_flops = 10, .router_flops = 4},
                  {.layer = 1, .experts = 4, .pair_flops = 15, .router_flops = 6}}};
}

// The proportions of MiniLM-L6 with 96 experts of 16 neurons and routers of width 64.
inline CostModel MiniLmCost() {
  CostModel cost{.token_flops = 6 * 4 * 2 * 384 * 384,
                 .attention_flops = 6 * 4 * 384,
                 .sequence_flops = 2 * 384 * 384 + 2 * 384 * 6,
                 .moe = {}};
  for (uint32_t layer = 0; layer < 6; ++layer) {
    cost.moe.push_back({.layer = layer,
                        .experts = 96,
                        .pair_flops = 4 * 384 * 16,
                        .router_flops = 2 * 384 * 64 + 2 * 64 * 96});
  }
  return cost;
}

// A curve like the one measured on emotion: the outer layers keep the most experts.
inline Calibration MiniLmCalibration() {
  const auto runs = [](double a, double b, double c, double d, double e, double f) {
    return std::vector<double>{a * 96, b * 96, c * 96, d * 96, e * 96, f * 96};
  };
  return {.metric = "accuracy",
          .rows = 1000,
          .tokens = 22000,
          .points = {{0, 1, .9285, .92, .935, runs(1, 1, 1, 1, 1, 1)},
                     {.02, .600, .9275, .92, .935, runs(.6, .4, .3, .3, .3, .45)},
                     {.1, .472, .9215, .91, .93, runs(.37, .17, .11, .09, .10, .25)},
                     {.3, .400, .8985, .88, .91, runs(.14, .07, .04, .04, .05, .10)},
                     {1, .358, .697, .68, .71, runs(.011, .011, .011, .011, .011, .011)}}};
}

}  // namespace dimmer

#endif  // DIMMER_TESTS_BUDGET_TEST_COST_H_
