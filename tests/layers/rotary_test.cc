#include "engine/layers/rotary.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/kernel_test_util.h"

namespace dimmer {
namespace {

std::vector<float> Turned(const Rotary& rotary, uint64_t position, std::vector<float> values) {
  std::vector<float> cosines(rotary.half()), sines(rotary.half());
  rotary.Angles(position, cosines, sines);
  rotary.Turn(cosines, sines, values.size() / (2 * rotary.half()), values.data());
  return values;
}

TEST(Rotary, TurnsByTheFormula) {
  for (double theta : {10000.0, 500000.0, 10.0}) {
    for (size_t head_dim : {2, 8, 12, 64}) {
      const Rotary rotary(head_dim, theta);
      ASSERT_EQ(rotary.half(), head_dim / 2);
      std::mt19937 random(static_cast<uint32_t>(head_dim));
      const size_t heads = 3;
      const auto x = RandomFloats(heads * head_dim, random);
      for (uint64_t position : {0, 1, 2, 63, 511, 4095}) {
        const auto got = Turned(rotary, position, x);
        // The angle is a float: it is off in proportion to the position.
        const double tolerance = 1e-6 + 5e-7 * static_cast<double>(position);
        for (size_t h = 0; h < heads; ++h) {
          for (size_t i = 0; i < head_dim / 2; ++i) {
            const double low = x[h * head_dim + i];
            const double high = x[h * head_dim + i + head_dim / 2];
            const double angle =
                static_cast<double>(position) *
                std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
            const double c = std::cos(angle), s = std::sin(angle);
            ASSERT_NEAR(got[h * head_dim + i], low * c - high * s, tolerance) << position;
            ASSERT_NEAR(got[h * head_dim + i + head_dim / 2], high * c + low * s, tolerance);
          }
        }
      }
    }
  }
}

TEST(Rotary, PositionZeroLeavesEverything) {
  std::mt19937 random(1);
  const auto x = RandomFloats(24, random);
  EXPECT_EQ(Turned(Rotary(12, 10000), 0, x), x);
}

// What it is for: a score depends on how far apart query and key are, not on where.
TEST(Rotary, ScoresDependOnTheDistance) {
  const size_t head_dim = 16;
  const Rotary rotary(head_dim, 10000);
  std::mt19937 random(2);
  const auto q = RandomFloats(head_dim, random), k = RandomFloats(head_dim, random);
  const auto score = [&](uint64_t q_position, uint64_t k_position) {
    const auto a = Turned(rotary, q_position, q), b = Turned(rotary, k_position, k);
    double sum = 0;
    for (size_t i = 0; i < head_dim; ++i) sum += double{a[i]} * b[i];
    return sum;
  };
  EXPECT_NEAR(score(7, 2), score(107, 102), 1e-4);
  EXPECT_GT(std::abs(score(7, 2) - score(7, 3)), 1e-3);
}

}  // namespace
}  // namespace dimmer
