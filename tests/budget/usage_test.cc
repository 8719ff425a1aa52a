#include "engine/budget/usage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dimmer {
namespace {

TEST(ModuleNameTest, NamesEveryModule) {
  EXPECT_EQ(ModuleName(Module::kFfn), "ffn");
  EXPECT_EQ(ModuleName(Module::kQ), "q");
  EXPECT_EQ(ModuleName(Module::kK), "k");
  EXPECT_EQ(ModuleName(Module::kV), "v");
  EXPECT_EQ(ModuleName(Module::kO), "o");
}

TEST(UsageTest, SumsCountsAndWeighsTauByTokens) {
  Usage sum;
  sum.Add({.flops = 10, .dense_flops = 20, .tau = 0.5, .prompt_tokens = 1, .queue_us = 7});
  EXPECT_DOUBLE_EQ(sum.tau, 0.5);
  sum.Add({.flops = 3,
           .dense_flops = 4,
           .tau = 0.1,
           .prompt_tokens = 2,
           .output_tokens = 1,
           .queue_us = 2,
           .compute_us = 9,
           .truncated = true});
  EXPECT_EQ(sum.flops, 13u);
  EXPECT_EQ(sum.dense_flops, 24u);
  EXPECT_DOUBLE_EQ(sum.tau, (0.5 * 1 + 0.1 * 3) / 4);
  EXPECT_EQ(sum.prompt_tokens, 3u);
  EXPECT_EQ(sum.output_tokens, 1u);
  EXPECT_EQ(sum.LayerTokens(), 4u);
  EXPECT_EQ(sum.queue_us, 7u);
  EXPECT_EQ(sum.compute_us, 9u);
  EXPECT_TRUE(sum.truncated);
  EXPECT_FALSE(sum.budget_clamped);
  EXPECT_FALSE(sum.degraded);
}

TEST(UsageTest, MeanOfEqualTausIsThatTau) {
  Usage sum;
  for (uint32_t tokens = 1; tokens < 50; ++tokens) {
    sum.Add({.tau = 0.1, .prompt_tokens = tokens});
    EXPECT_EQ(sum.tau, 0.1);
  }
}

TEST(UsageTest, MergesLayersInOrder) {
  const auto layer = [](uint32_t index, Module module, uint64_t runs) {
    return LayerUsage{.layer = index, .module = module, .experts = 4, .expert_runs = runs};
  };
  Usage sum;
  sum.Add({.layers = {layer(0, Module::kQ, 1), layer(2, Module::kFfn, 2)}});
  sum.Add({.layers = {layer(0, Module::kFfn, 10), layer(0, Module::kQ, 20),
                      layer(1, Module::kFfn, 30)}});
  std::vector<std::tuple<uint32_t, Module, uint64_t>> merged;
  for (const LayerUsage& usage : sum.layers) {
    EXPECT_EQ(usage.experts, 4u);
    merged.emplace_back(usage.layer, usage.module, usage.expert_runs);
  }
  EXPECT_THAT(merged, testing::ElementsAre(
                          std::tuple(0, Module::kFfn, 10), std::tuple(0, Module::kQ, 21),
                          std::tuple(1, Module::kFfn, 30), std::tuple(2, Module::kFfn, 2)));
}

TEST(UsageTest, CountsTheTokensThatRanThroughTheLayers) {
  Usage sum;
  sum.Add({.prompt_tokens = 3, .output_tokens = 2, .layer_tokens = 4});
  EXPECT_EQ(sum.LayerTokens(), 4u);
  sum.Add({.prompt_tokens = 5});
  EXPECT_EQ(sum.LayerTokens(), 9u);
}

}  // namespace
}  // namespace dimmer
