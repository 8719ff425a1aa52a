#include "engine/kernels/rowwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/kernels/reference.h"
#include "tests/kernels/kernel_test_util.h"

namespace dimmer {
namespace {

TEST(LayerNormRow, MatchesTheReferenceAndMayRunInPlace) {
  ForEachTarget([] {
    for (size_t d : {1, 7, 16, 17, 40, 384, 770}) {
      SCOPED_TRACE(d);
      std::mt19937 random(static_cast<uint32_t>(d));
      std::vector<float> x = RandomFloats(d, random, 3.0f);
      for (float& value : x) value += 10.0f;
      const auto gamma = RandomFloats(d, random);
      const auto beta = RandomFloats(d, random);
      AlignedBuffer<float> row = Padded(x, 1, d);
      const AlignedBuffer<float> g = PadBias(gamma);
      const AlignedBuffer<float> b = PadBias(beta);
      LayerNormRow(row.data(), g.data(), b.data(), d, 1e-12f, row.data());
      const auto want = reference::LayerNorm(x, gamma, beta, 1e-12);
      for (size_t i = 0; i < d; ++i) ASSERT_NEAR(row[i], want[i], 2e-5) << i;
    }
  });
}

TEST(RmsNormRow, MatchesTheReferenceAndMayRunInPlace) {
  ForEachTarget([] {
    for (size_t d : {1, 7, 15, 16, 17, 40, 64, 384, 770}) {
      for (float epsilon : {1e-6f, 0.1f}) {
        SCOPED_TRACE(d);
        std::mt19937 random(static_cast<uint32_t>(d));
        std::vector<float> x = RandomFloats(d, random, 3.0f);
        for (float& value : x) value += 1.0f;  // the mean stays
        const auto gamma = RandomFloats(d, random);
        AlignedBuffer<float> row = Padded(x, 1, d);  // its padding is NaN
        AlignedBuffer<float> out(PaddedWidth(d));
        const AlignedBuffer<float> g = PadBias(gamma);
        RmsNormRow(row.data(), g.data(), d, epsilon, out.data());
        RmsNormRow(row.data(), g.data(), d, epsilon, row.data());
        const auto want = reference::RmsNorm(x, gamma, epsilon);
        for (size_t i = 0; i < d; ++i) {
          ASSERT_NEAR(row[i], want[i], 1e-5) << i;
          ASSERT_EQ(out[i], row[i]) << i;
        }
      }
    }
  });
}

TEST(RmsNormRow, OfZerosIsZero) {
  ForEachTarget([] {
    AlignedBuffer<float> row(PaddedWidth(20)), gamma(PaddedWidth(20));
    for (size_t i = 0; i < 20; ++i) gamma[i] = 2;
    RmsNormRow(row.data(), gamma.data(), 20, 1e-6f, row.data());
    for (size_t i = 0; i < 20; ++i) EXPECT_EQ(row[i], 0);
  });
}

TEST(MultiplyRow, Multiplies) {
  ForEachTarget([] {
    for (size_t count : {1, 16, 20, 48}) {
      AlignedBuffer<float> x(PaddedWidth(count)), y(PaddedWidth(count));
      for (size_t i = 0; i < count; ++i) {
        x[i] = static_cast<float>(i) - 3;
        y[i] = 0.25f * static_cast<float>(i);
      }
      MultiplyRow(y.data(), count, x.data());
      for (size_t i = 0; i < count; ++i) {
        const float value = static_cast<float>(i);
        ASSERT_EQ(x[i], (value - 3) * (0.25f * value)) << i;
      }
    }
  });
}

TEST(AddRows, ConvertsSixteenBitFormatsExactly) {
  ForEachTarget([] {
    for (size_t count : {1, 3, 16, 19, 40}) {
      std::vector<uint16_t> half(count), brain(count);
      std::vector<float> single(count), out(count);
      for (size_t i = 0; i < count; ++i) {
        half[i] = static_cast<uint16_t>(0x3c00 + i);                // 1 + i / 1024
        const float value = 1.0f + static_cast<float>(i) / 128.0f;  // exact in bfloat16
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        brain[i] = static_cast<uint16_t>(bits >> 16);
        single[i] = static_cast<float>(i);
      }
      AddHalf(half.data(), count, out.data());
      AddBFloat16(brain.data(), count, out.data());
      AddFloat(single.data(), count, out.data());
      for (size_t i = 0; i < count; ++i) {
        const float x = static_cast<float>(i);
        ASSERT_EQ(out[i], (1.0f + x / 1024.0f) + (1.0f + x / 128.0f) + x) << i;
      }
    }
  });
}

TEST(ExpShifted, MatchesTheMathLibrary) {
  ForEachTarget([] {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (const size_t count : {1, 15, 16, 17, 100, 1024, 1030, 5000}) {
      for (const float scale : {0.0f, 0.5f, 1.0f, 3.0e38f}) {
        std::mt19937 random(static_cast<uint32_t>(count));
        std::vector<float> x = RandomFloats(count, random, 20.0f);
        const float max = *std::max_element(x.begin(), x.end());
        if (count > 1) x[x[0] == max ? 1 : 0] = -kInfinity;
        std::vector<float> out(count);
        double want = 0;
        const double sum = ExpShifted(x.data(), count, max, scale, out.data());
        for (size_t i = 0; i < count; ++i) {
          const double power = std::max(double{x[i]} - double{max}, -3.0e38) * double{scale};
          const double term = std::exp(power);
          // The power is rounded to a float: an error in proportion to it.
          const double tolerance = term * (1e-6 + 2e-7 * std::abs(power));
          ASSERT_NEAR(out[i], term, power < -86 ? 1e-37 : tolerance) << i;
          want += term;
        }
        ASSERT_NEAR(sum, want, 1e-5 * want);
        ASSERT_EQ(ExpShifted(x.data(), count, max, scale, nullptr), sum);
      }
    }
  });
}

TEST(AddRow, Adds) {
  AlignedBuffer<float> a(32), b(32), out(32);
  for (size_t i = 0; i < 32; ++i) {
    a[i] = static_cast<float>(i);
    b[i] = 2;
  }
  AddRow(a.data(), b.data(), 20, out.data());
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(out[i], static_cast<float>(i) + 2);
}

TEST(InstructionSet, FollowsTheChosenTarget) {
  for (int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    EXPECT_STREQ(InstructionSet(), hwy::TargetName(target));
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace
}  // namespace dimmer
