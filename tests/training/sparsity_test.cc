// Activations and penalties against their formulas, and their gradients against differences.
#include "training/sparsity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <stdexcept>

#include "training/graph_ops.h"

namespace dimmer {
namespace {

double Gelu(double x) { return x / 2 * (1 + std::erf(x / std::sqrt(2.0))); }
double GeluTanh(double x) {
  return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
double Silu(double x) { return x / (1 + std::exp(-x)); }
double Relu(double x) { return std::max(x, 0.0); }
double Displaced(double x) { return std::max(x, -10.0) + 10; }

struct Case {
  const char* name;
  Sparsity sparsity;
  bool gate;
  double (*function)(double);
  double (*penalised)(double);
};

const Case kCases[] = {
    {"ReluHoyer", {Activation::kRelu, Penalty::kSquareHoyer}, false, Relu, Relu},
    {"ReluL1", {Activation::kRelu, Penalty::kL1}, false, Relu, Relu},
    {"GeluHoyer", {Activation::kGelu, Penalty::kSquareHoyer}, false, Gelu, Displaced},
    {"GeluL1", {Activation::kGelu, Penalty::kL1}, false, Gelu, Displaced},
    {"GeluTanhHoyer", {Activation::kGeluTanh, Penalty::kSquareHoyer}, false, GeluTanh, Displaced},
    {"ReluGateHoyer", {Activation::kRelu, Penalty::kSquareHoyer}, true, Relu, Relu},
    {"SiluGateHoyer", {Activation::kSilu, Penalty::kSquareHoyer}, true, Silu, Relu},
    {"SiluGateL1", {Activation::kSilu, Penalty::kL1}, true, Silu, Relu},
};

class SparsityTest : public testing::TestWithParam<Case> {
 protected:
  static constexpr int64_t kTokens = 5, kHidden = 12;
  SparseActivation Run(const torch::Tensor& pre) const {
    return GetParam().gate ? ActivateGate(pre, GetParam().sparsity)
                           : Activate(pre, GetParam().sparsity);
  }
  // Some far below zero, none where ReLU or the displacement has its corner.
  static torch::Tensor Values() {
    torch::Tensor pre = torch::empty({kTokens, kHidden});
    for (int64_t i = 0; i < pre.numel(); ++i) {
      pre.data_ptr<float>()[i] = static_cast<float>(3 * std::sin(1.7 * double(i) + 0.3));
    }
    pre[1][2] = -12;
    pre[4][7] = -30;
    return pre;
  }
};

TEST_P(SparsityTest, FollowsItsFormula) {
  const torch::Tensor pre = Values();
  const SparseActivation result = Run(pre);
  double penalty = 0;
  int64_t active = 0;
  for (int64_t t = 0; t < kTokens; ++t) {
    double sum = 0;
    double squares = 0;
    for (int64_t j = 0; j < kHidden; ++j) {
      const double x = pre[t][j].item<float>();
      const double value = GetParam().function(x);
      EXPECT_NEAR(result.values[t][j].item<float>(), value, 1e-5) << t << " " << j;
      const double limit = GetParam().sparsity.activation == Activation::kRelu ? 0 : kQuiet;
      if (std::abs(value) > limit) ++active;
      sum += GetParam().penalised(x);
      squares += GetParam().penalised(x) * GetParam().penalised(x);
    }
    penalty += GetParam().sparsity.penalty == Penalty::kL1 ? sum : sum * sum / squares;
  }
  EXPECT_NEAR(result.penalty.item<float>(), penalty, 1e-4 * penalty);
  EXPECT_EQ(result.active, active);
  EXPECT_LT(active, kTokens * kHidden);
  EXPECT_TRUE(torch::allclose(Activated(pre, GetParam().sparsity.activation), result.values));
}

TEST_P(SparsityTest, GradientsAreThoseOfDifferences) {
  const auto loss = [&](const torch::Tensor& pre) {
    const SparseActivation result = Run(pre);
    return result.penalty + (result.values * result.values).sum() * 0.25;
  };
  torch::Tensor pre = Values().set_requires_grad(true);
  loss(pre).backward();
  const torch::Tensor gradient = pre.grad();
  constexpr float kStep = 1e-2F;
  for (const auto& [t, j] : {std::pair<int64_t, int64_t>{0, 0}, {0, 3}, {1, 2}, {2, 5}, {4, 7}}) {
    torch::Tensor above = Values();
    torch::Tensor below = Values();
    above[t][j] += kStep;
    below[t][j] -= kStep;
    const double difference =
        (loss(above).item<double>() - loss(below).item<double>()) / (2 * double(kStep));
    EXPECT_NEAR(gradient[t][j].item<double>(), difference, 2e-2 + 2e-2 * std::abs(difference))
        << t << " " << j;
  }
}

INSTANTIATE_TEST_SUITE_P(All, SparsityTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

TEST(Activated, RefusesWhatFfnsDoNotUse) {
  EXPECT_THROW(Activated(torch::zeros({1, 1}), Activation::kTanh), std::invalid_argument);
}

TEST(Penalty, NamesAreThoseOfOptionsAndReports) {
  for (const Penalty penalty : {Penalty::kSquareHoyer, Penalty::kL1}) {
    EXPECT_EQ(PenaltyOf({{"epoch", 1}, {PenaltyName(penalty), 2.0}}), penalty);
  }
}

}  // namespace
}  // namespace dimmer
