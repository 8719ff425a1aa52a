#include "training/route.h"

#include <gtest/gtest.h>

#include "tests/training/test_trainee.h"

namespace dimmer {
namespace {

TEST(ExpertNormsTest, MatchTheOutputsOfTheExperts) {
  TestBert bert;
  const BertTrainee model(ShapeOf(bert), WeightsOf(bert));
  const FfnWeights ffn = FfnOf(model, 1);
  const torch::Tensor z = torch::sin(torch::arange(7 * 24, torch::kFloat32)).reshape({7, 24});
  const torch::Tensor norms = ExpertNorms(ffn, 6, z);
  ASSERT_EQ(norms.sizes(), (std::vector<int64_t>{7, 6}));
  for (int64_t n = 0; n < 6; ++n) {
    const torch::Tensor act =
        at::relu(at::linear(z, ffn.up.narrow(0, n * 8, 8), ffn.up_bias.narrow(0, n * 8, 8)));
    const torch::Tensor out = at::linear(act, ffn.down.narrow(1, n * 8, 8));
    EXPECT_TRUE(torch::allclose(norms.select(1, n), out.norm(2, 1), 1e-4, 1e-5)) << n;
  }
}

TEST(ExpertNormsTest, FollowTheModelsActivation) {
  TestBert bert;
  const BertTrainee model(ShapeOf(bert), WeightsOf(bert), {.activation = Activation::kGelu});
  const FfnWeights ffn = FfnOf(model, 0);
  const torch::Tensor z = torch::sin(torch::arange(7 * 24, torch::kFloat32)).reshape({7, 24});
  const torch::Tensor act =
      at::gelu(at::linear(z, ffn.up.narrow(0, 8, 8), ffn.up_bias.narrow(0, 8, 8)));
  const torch::Tensor out = at::linear(act, ffn.down.narrow(1, 8, 8));
  const torch::Tensor norms = ExpertNorms(ffn, 6, z);
  EXPECT_TRUE(torch::allclose(norms.select(1, 1), out.norm(2, 1), 1e-4, 1e-5));
}

class RouteTest : public testing::Test {
 protected:
  RouteTest() {
    options_.experts = 12;
    options_.width = 16;
    options_.epochs = 8;
    options_.batch_tokens = 32;
    options_.learning_rate = 5e-3;
  }
  TestBert bert_;
  RouteOptions options_;
  const BertTrainee model_{ShapeOf(bert_), WeightsOf(bert_)};
  const std::vector<Example> training_ = FindTheToken(bert_, 500, 1);
  const std::vector<Example> check_ = FindTheToken(bert_, 100, 2);
};

TEST_F(RouteTest, BeatsAConstantPredictorOnUnseenTokens) {
  const auto inputs = CollectFfnInputs(model_, training_, {.max_tokens = 1000000}, 2);
  const auto check = CollectFfnInputs(model_, check_, {.max_tokens = 1000000}, 1);
  for (int64_t layer = 0; layer < 2; ++layer) {
    const Router router = TrainRouter(FfnOf(model_, layer), inputs[layer], check[layer], layer,
                                      options_, nullptr, nullptr);
    EXPECT_GT(router.explained, 0.5) << layer;  // a constant explains 0
    EXPECT_EQ(router.w1.size(), 16 * 24);
    EXPECT_EQ(router.w2.size(), 12 * 16);
    // What is reported is what the stored matrices give.
    const torch::Tensor w1 = torch::tensor(at::ArrayRef<float>(router.w1)).reshape({16, 24});
    const torch::Tensor w2 = torch::tensor(at::ArrayRef<float>(router.w2)).reshape({12, 16});
    const torch::Tensor norms = ExpertNorms(FfnOf(model_, layer), 12, check[layer]);
    const torch::Tensor scores = at::linear(at::relu(at::linear(check[layer], w1)), w2).abs();
    const double explained =
        1 - ((scores - norms).square().mean() / norms.var(0, false).mean()).item<double>();
    EXPECT_NEAR(router.explained, explained, 1e-3);
  }
}

TEST_F(RouteTest, IsDeterministic) {
  const auto inputs = CollectFfnInputs(model_, check_, {.max_tokens = 1000000}, 1);
  const Router a =
      TrainRouter(FfnOf(model_, 0), inputs[0], inputs[0], 0, options_, nullptr, nullptr);
  const Router b =
      TrainRouter(FfnOf(model_, 0), inputs[0], inputs[0], 0, options_, nullptr, nullptr);
  EXPECT_EQ(a.w1, b.w1);
  EXPECT_EQ(a.w2, b.w2);
}

TEST_F(RouteTest, CollectsWholeRowsUpToTheLimitWhateverTheWorkers) {
  const auto one = CollectFfnInputs(model_, training_, {.max_tokens = 300}, 1);
  const auto two = CollectFfnInputs(model_, training_, {.max_tokens = 300}, 2);
  ASSERT_EQ(one.size(), 2);
  EXPECT_LE(one[0].size(0), 300);
  EXPECT_GT(one[0].size(0), 290);
  EXPECT_TRUE(torch::equal(one[1], two[1]));
}

// What gated layers give the later ones is another thing than what dense ones do.
TEST_F(RouteTest, RefinementFitsWhatAGatedModelGives) {
  const CollectOptions dense{.max_tokens = 1000000};
  const auto inputs = CollectFfnInputs(model_, training_, dense, 2);
  const auto check = CollectFfnInputs(model_, check_, dense, 2);
  std::vector<Router> routers;
  for (int64_t layer = 0; layer < 2; ++layer) {
    routers.push_back(TrainRouter(FfnOf(model_, layer), inputs[layer], check[layer], layer,
                                  options_, nullptr, nullptr));
  }
  const CollectOptions gated{.max_tokens = 1000000, .gates = routers, .experts = 12};
  const auto gated_inputs = CollectFfnInputs(model_, training_, gated, 2);
  const auto gated_check = CollectFfnInputs(model_, check_, gated, 1);
  EXPECT_TRUE(torch::equal(gated_inputs[0], inputs[0]));  // nothing is gated before it
  EXPECT_FALSE(torch::allclose(gated_inputs[1], inputs[1]));
  options_.epochs = 4;
  const Router refined = TrainRouter(FfnOf(model_, 1), gated_inputs[1], gated_check[1], 1, options_,
                                     &routers[1], nullptr);
  options_.epochs = 1;
  options_.learning_rate = 1e-12;  // as it was
  const Router same = TrainRouter(FfnOf(model_, 1), gated_inputs[1], gated_check[1], 1, options_,
                                  &routers[1], nullptr);
  EXPECT_GT(refined.explained, same.explained);
  for (size_t i = 0; i < same.w1.size(); ++i) EXPECT_NEAR(same.w1[i], routers[1].w1[i], 1e-6);
  for (size_t i = 0; i < same.w2.size(); ++i) EXPECT_NEAR(same.w2[i], routers[1].w2[i], 1e-5);
}

// Where all scores are equal every expert runs: the dense model.
TEST_F(RouteTest, AGateThatPrefersNoneKeepsAll) {
  const Router router{.w1 = std::vector<float>(24 * 24), .w2 = std::vector<float>(12 * 24)};
  const std::vector<Router> gates = {router, router};
  const auto dense = CollectFfnInputs(model_, check_, {.max_tokens = 1000}, 1);
  const auto gated =
      CollectFfnInputs(model_, check_, {.max_tokens = 1000, .gates = gates, .experts = 12}, 1);
  EXPECT_TRUE(torch::equal(dense[1], gated[1]));
}

}  // namespace
}  // namespace dimmer
