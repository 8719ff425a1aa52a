#include "training/split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "training/bert_shape.h"
#include "training/gpt2_shape.h"
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

// GPT-2 stores both matrices the other way round; what the layer computes must not care.
TEST(SplitTest, PermutesMatricesOfEitherOrientation) {
  const Gpt2Shape shape{
      .width = 8, .layers = 1, .heads = 2, .hidden = 24, .vocab = 5, .positions = 4};
  const ModelLayout layout = LayoutOf(shape);
  const WeightMap before = DrawGpt2(shape, 7);
  WeightMap after = before;
  ASSERT_TRUE(SplitIntoExperts(layout, 6, 1, 2, after, nullptr).ok());
  EXPECT_NE(after, before);
  // The same weights in BERT's orientation and names.
  const auto as_bert = [&](const WeightMap& weights) {
    WeightMap bert;
    const auto across = [](const std::vector<float>& matrix, size_t rows, size_t columns) {
      std::vector<float> turned(matrix.size());
      for (size_t r = 0; r < rows; ++r) {
        for (size_t c = 0; c < columns; ++c) turned[c * rows + r] = matrix[r * columns + c];
      }
      return turned;
    };
    bert["bert.encoder.layer.0.intermediate.dense.weight"] =
        across(weights.at(layout.ffns[0].up), 8, 24);
    bert["bert.encoder.layer.0.intermediate.dense.bias"] = weights.at(layout.ffns[0].up_bias);
    bert["bert.encoder.layer.0.output.dense.weight"] =
        across(weights.at(layout.ffns[0].down), 24, 8);
    return bert;
  };
  RandomStream random(5);
  std::vector<double> z(8);
  for (double& x : z) x = random.Normal();
  const std::vector<double> want = Ffn(as_bert(before), 0, z);
  const std::vector<double> got = Ffn(as_bert(after), 0, z);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-12);
  // One and the same split as of the same matrices in the other orientation.
  WeightMap bert = as_bert(before);
  ModelLayout turned = LayoutOf(kShape);
  turned.ffns.resize(1);
  ASSERT_TRUE(SplitIntoExperts(turned, 6, 1, 2, bert, nullptr).ok());
  EXPECT_EQ(bert, as_bert(after));
}

}  // namespace
}  // namespace dimmer
