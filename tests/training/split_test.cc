#include "training/split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "training/bert_shape.h"
#include "training/random.h"

namespace dimmer {
namespace {

constexpr BertShape kShape{.width = 8,
                           .layers = 2,
                           .heads = 2,
                           .hidden = 24,
                           .vocab = 5,
                           .positions = 4,
                           .types = 2,
                           .classes = 2};

WeightMap RandomWeights(const BertShape& shape) {
  WeightMap weights;
  uint64_t key = 0;
  for (const NamedShape& tensor : BertTensors(shape)) {
    size_t count = 1;
    for (int64_t size : tensor.shape) count *= size;
    RandomStream random(++key);
    for (size_t i = 0; i < count; ++i) {
      weights[tensor.name].push_back(static_cast<float>(random.Normal()));
    }
  }
  return weights;
}

// relu(z W1 + b1) W2 of one layer, in double.
std::vector<double> Ffn(const WeightMap& weights, int layer, const std::vector<double>& z) {
  const std::string prefix = "bert.encoder.layer." + std::to_string(layer);
  const auto& up = weights.at(prefix + ".intermediate.dense.weight");
  const auto& bias = weights.at(prefix + ".intermediate.dense.bias");
  const auto& down = weights.at(prefix + ".output.dense.weight");
  const size_t d = z.size();
  std::vector<double> out(d, 0);
  for (size_t n = 0; n < bias.size(); ++n) {
    double pre = bias[n];
    for (size_t i = 0; i < d; ++i) pre += static_cast<double>(up[n * d + i]) * z[i];
    for (size_t i = 0; i < d; ++i) out[i] += std::max(pre, 0.0) * down[i * bias.size() + n];
  }
  return out;
}

TEST(SplitTest, LeavesTheDenseFunctionUnchanged) {
  const WeightMap before = RandomWeights(kShape);
  WeightMap after = before;
  const auto report = SplitIntoExperts(LayoutOf(kShape), 6, 1, 2, after, nullptr);
  ASSERT_TRUE(report.ok()) << report.status();
  RandomStream random(77);
  for (int layer = 0; layer < 2; ++layer) {
    std::vector<double> z(kShape.width);
    for (double& x : z) x = random.Normal();
    const std::vector<double> want = Ffn(before, layer, z);
    const std::vector<double> got = Ffn(after, layer, z);
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-12);
    const std::string name =
        "bert.encoder.layer." + std::to_string(layer) + ".intermediate.dense.weight";
    EXPECT_NE(before.at(name), after.at(name));  // something did move
    EXPECT_LT(report->inertia[layer], report->baseline[layer]);
  }
}

TEST(SplitTest, TouchesNothingElseAndIsDeterministic) {
  const WeightMap before = RandomWeights(kShape);
  WeightMap a = before;
  WeightMap b = before;
  ASSERT_TRUE(SplitIntoExperts(LayoutOf(kShape), 6, 1, 1, a, nullptr).ok());
  ASSERT_TRUE(SplitIntoExperts(LayoutOf(kShape), 6, 1, 2, b, nullptr).ok());
  EXPECT_EQ(a, b);  // whatever the workers
  for (const auto& [name, values] : before) {
    const bool moved = name.find("intermediate.dense") != std::string::npos ||
                       (name.find("output.dense.weight") != std::string::npos &&
                        name.find("attention") == std::string::npos);
    if (!moved) {
      EXPECT_EQ(a.at(name), values) << name;
    }
  }
}

TEST(SplitTest, RefusesExpertsThatDoNotDivide) {
  WeightMap weights = RandomWeights(kShape);
  EXPECT_EQ(SplitIntoExperts(LayoutOf(kShape), 5, 1, 1, weights, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace dimmer
