#include "training/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "training/random.h"

namespace dimmer {
namespace {

std::vector<float> RandomVector(size_t count, uint64_t key, double scale = 1) {
  RandomStream random(key);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.Normal() * scale);
  return values;
}

double Dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// Central differences of `f` by every element of `x`, in fp32 with a step that balances rounding
// (1e-7 / step) against curvature (step^2).
std::vector<double> Differences(std::vector<float> x,
                                const std::function<double(const std::vector<float>&)>& f) {
  constexpr float kStep = 4e-3F;
  std::vector<double> slopes;
  for (float& value : x) {
    const float old = value;
    value = old + kStep;
    const double up = f(x);
    value = old - kStep;
    const double down = f(x);
    value = old;
    slopes.push_back((up - down) / (2 * kStep));
  }
  return slopes;
}

void ExpectNear(const std::vector<float>& got, const std::vector<double>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance) << i;
}

TEST(HoyerTest, ValuesOfKnownVectors) {
  const std::vector<float> pre = {1, 1,  1, 1,   // all equal: h is the width
                                  3, -1, 0, -2,  // one active: h is 1
                                  0, -1, 0, -2,  // none: h is 0
                                  2, 1,  0, 0};  // (3)^2 / 5
  std::vector<float> act(pre.size());
  std::vector<HoyerSums> sums(4);
  EXPECT_EQ(ReluHoyerForward(pre.data(), 4, 4, act.data(), sums.data()), 4 + 1 + 0 + 2);
  EXPECT_NEAR(sums[0].Value(), 4, 1e-6);
  EXPECT_NEAR(sums[1].Value(), 1, 1e-6);
  EXPECT_EQ(sums[2].Value(), 0);
  EXPECT_NEAR(sums[3].Value(), 1.8, 1e-6);
  for (size_t i = 0; i < pre.size(); ++i) EXPECT_EQ(act[i], std::max(pre[i], 0.0F));
}

TEST(HoyerTest, GradientMatchesFiniteDifferences) {
  constexpr int64_t kTokens = 3;
  constexpr int64_t kHidden = 37;  // not a multiple of any vector
  constexpr float kAlpha = 0.3F;
  std::vector<float> pre = RandomVector(kTokens * kHidden, 1);
  for (float& value : pre) {
    if (std::abs(value) < 0.02F) value = 0.5F;  // stay clear of ReLU's kink
  }
  const std::vector<float> dact = RandomVector(pre.size(), 2);
  const auto loss = [&](const std::vector<float>& x) {
    std::vector<float> act(x.size());
    std::vector<HoyerSums> sums(kTokens);
    ReluHoyerForward(x.data(), kTokens, kHidden, act.data(), sums.data());
    double total = Dot(act, dact);
    for (const HoyerSums& s : sums) total += kAlpha * s.Value();
    return total;
  };
  std::vector<float> act(pre.size());
  std::vector<HoyerSums> sums(kTokens);
  ReluHoyerForward(pre.data(), kTokens, kHidden, act.data(), sums.data());
  std::vector<float> dpre(pre.size());
  ReluHoyerBackward(act.data(), sums.data(), dact.data(), kAlpha, kTokens, kHidden, dpre.data());
  ExpectNear(dpre, Differences(pre, loss), 3e-3);
}

TEST(HoyerTest, AllZeroActivationsHaveNoGradient) {
  const std::vector<float> act(8, 0.0F);
  const HoyerSums sums;
  const std::vector<float> dact(8, 1.0F);
  std::vector<float> dpre(8, -1.0F);
  ReluHoyerBackward(act.data(), &sums, dact.data(), 1.0F, 1, 8, dpre.data());
  for (float value : dpre) EXPECT_EQ(value, 0);
}

TEST(DropoutMaskTest, DropsItsShareAndKeepsTheMean) {
  std::vector<float> mask(200000);
  DropoutMask({0.1F, 42}, mask);
  const auto dropped = std::count(mask.begin(), mask.end(), 0.0F);
  EXPECT_NEAR(static_cast<double>(dropped) / 200000, 0.1, 0.004);  // 6 standard errors
  for (float factor : mask) EXPECT_TRUE(factor == 0 || std::abs(factor - 1 / 0.9F) < 1e-6F);
}

TEST(DropoutMaskTest, DependsOnTheKeyAlone) {
  std::vector<float> a(1000);
  std::vector<float> b(1000);
  std::vector<float> c(1000);
  DropoutMask({0.5F, 1}, a);
  DropoutMask({0.5F, 1}, b);
  DropoutMask({0.5F, 2}, c);
  EXPECT_EQ(a, b);
  int same = 0;
  for (size_t i = 0; i < a.size(); ++i) same += a[i] == c[i] ? 1 : 0;
  EXPECT_NEAR(same, 500, 100);  // independent masks agree in half the places
}

// The definition, one row at a time, in double.
std::vector<double> NaiveAttention(const AttentionShape& shape, const std::vector<float>& q,
                                   const std::vector<float>& k, const std::vector<float>& v) {
  std::vector<double> out(q.size(), 0);
  const int dh = shape.width / shape.heads;
  for (size_t s = 0; s + 1 < shape.offsets.size(); ++s) {
    for (int h = 0; h < shape.heads; ++h) {
      for (int i = shape.offsets[s]; i < shape.offsets[s + 1]; ++i) {
        std::vector<double> weights;
        double sum = 0;
        for (int j = shape.offsets[s]; j < shape.offsets[s + 1]; ++j) {
          double score = 0;
          for (int d = h * dh; d < (h + 1) * dh; ++d) {
            score += static_cast<double>(q[i * shape.width + d]) * k[j * shape.width + d];
          }
          weights.push_back(std::exp(score / std::sqrt(dh)));
          sum += weights.back();
        }
        for (int j = shape.offsets[s]; j < shape.offsets[s + 1]; ++j) {
          for (int d = h * dh; d < (h + 1) * dh; ++d) {
            out[i * shape.width + d] +=
                weights[j - shape.offsets[s]] / sum * v[j * shape.width + d];
          }
        }
      }
    }
  }
  return out;
}

class AttentionTest : public testing::TestWithParam<int32_t /* head width */> {
 protected:
  static constexpr int32_t kHeads = 2;
  const std::vector<int32_t> offsets_ = {0, 1, 6, 9};
  const AttentionShape shape_{offsets_, kHeads, kHeads* GetParam()};
  const size_t count_ = 9 * shape_.width;
  const std::vector<float> q_ = RandomVector(count_, 1);
  const std::vector<float> k_ = RandomVector(count_, 2);
  const std::vector<float> v_ = RandomVector(count_, 3);
};

TEST_P(AttentionTest, MatchesTheDefinition) {
  std::vector<float> out(count_);
  std::vector<float> probabilities(shape_.ProbabilityCount());
  AttentionForward(shape_, {}, q_.data(), k_.data(), v_.data(), out.data(), probabilities.data());
  ExpectNear(out, NaiveAttention(shape_, q_, k_, v_), 1e-5);
}

TEST_P(AttentionTest, GradientMatchesFiniteDifferencesUnderDropout) {
  const Dropout dropout{0.2F, 99};
  const std::vector<float> dout = RandomVector(count_, 4, 0.5);
  std::vector<float> probabilities(shape_.ProbabilityCount());
  const auto loss = [&](const std::vector<float>& q, const std::vector<float>& k,
                        const std::vector<float>& v) {
    std::vector<float> out(count_);
    AttentionForward(shape_, dropout, q.data(), k.data(), v.data(), out.data(),
                     probabilities.data());
    return Dot(out, dout);
  };
  const auto dq_want = Differences(q_, [&](const auto& x) { return loss(x, k_, v_); });
  const auto dk_want = Differences(k_, [&](const auto& x) { return loss(q_, x, v_); });
  const auto dv_want = Differences(v_, [&](const auto& x) { return loss(q_, k_, x); });
  loss(q_, k_, v_);  // leaves the probabilities of the point itself
  std::vector<float> dq(count_);
  std::vector<float> dk(count_);
  std::vector<float> dv(count_);
  AttentionBackward(shape_, dropout, q_.data(), k_.data(), v_.data(), probabilities.data(),
                    dout.data(), dq.data(), dk.data(), dv.data());
  ExpectNear(dq, dq_want, 2e-3);
  ExpectNear(dk, dk_want, 2e-3);
  ExpectNear(dv, dv_want, 2e-3);
}

INSTANTIATE_TEST_SUITE_P(HeadWidths, AttentionTest, testing::Values(5, 32));

TEST(MatrixProductTest, MatchesTheDefinition) {
  const std::vector<float> a = RandomVector(3 * 5, 1);
  const std::vector<float> b = RandomVector(5 * 19, 2);
  std::vector<float> out(3 * 19);
  MatrixProduct(a.data(), b.data(), 3, 5, 19, out.data());
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 19; ++j) {
      double sum = 0;
      for (int d = 0; d < 5; ++d) sum += static_cast<double>(a[i * 5 + d]) * b[d * 19 + j];
      EXPECT_NEAR(out[i * 19 + j], sum, 1e-5);
    }
  }
}

TEST(AdamUpdateTest, FollowsTheDefinitionOverSeveralSteps) {
  constexpr size_t kCount = 1500;  // more than one block
  std::vector<float> values = RandomVector(kCount, 1);
  std::vector<float> first(kCount, 0);
  std::vector<float> second(kCount, 0);
  std::vector<double> w(values.begin(), values.end());
  std::vector<double> m(kCount, 0);
  std::vector<double> s(kCount, 0);
  for (int64_t step = 1; step <= 3; ++step) {
    const std::vector<float> g1 = RandomVector(kCount, 10 + step);
    const std::vector<float> g2 = RandomVector(kCount, 20 + step);
    const float* gradients[] = {g1.data(), g2.data()};
    AdamUpdate({.learning_rate = 0.01F, .weight_decay = 0.1F, .gradient_scale = 0.5F, .step = step},
               gradients, values, first, second);
    for (size_t i = 0; i < kCount; ++i) {
      const double g = 0.5 * (static_cast<double>(g1[i]) + g2[i]);
      m[i] = 0.9 * m[i] + 0.1 * g;
      s[i] = 0.999 * s[i] + 0.001 * g * g;
      const double m_hat = m[i] / (1 - std::pow(0.9, step));
      const double s_hat = s[i] / (1 - std::pow(0.999, step));
      w[i] = w[i] * (1 - 0.01 * 0.1) - 0.01 * m_hat / (std::sqrt(s_hat) + 1e-8);
    }
  }
  ExpectNear(values, w, 1e-5);
}

TEST(SquaredNormTest, SumsGradientsFirst) {
  const std::vector<float> a = RandomVector(3000, 1);
  const std::vector<float> b = RandomVector(3000, 2);
  const std::vector<float> c = RandomVector(3000, 3);
  double want1 = 0;
  double want2 = 0;
  double want3 = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    want1 += std::pow(static_cast<double>(a[i]), 2);
    want2 += std::pow(static_cast<double>(a[i]) + b[i], 2);
    want3 += std::pow(static_cast<double>(a[i]) + b[i] + c[i], 2);
  }
  const float* all[] = {a.data(), b.data(), c.data()};
  EXPECT_NEAR(SquaredNorm(std::span(all).first(1), 3000), want1, want1 * 1e-5);
  EXPECT_NEAR(SquaredNorm(std::span(all).first(2), 3000), want2, want2 * 1e-5);
  EXPECT_NEAR(SquaredNorm(all, 3000), want3, want3 * 1e-5);
}

}  // namespace
}  // namespace dimmer
