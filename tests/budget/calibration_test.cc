#include "engine/budget/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dimmer {
namespace {

Calibration Curve() {
  return {.metric = "accuracy",
          .rows = 10,
          .tokens = 100,
          .points = {{0, 1, 0.9, 0.8, 0.95, {8, 4}},
                     {0.2, 0.6, 0.8, 0.7, 0.85, {4, 2}},
                     {0.6, 0.4, 0.5, 0.4, 0.55, {2, 1}}}};
}

TEST(CalibrationTest, InterpolatesBetweenPointsAndClampsToTheEnds) {
  struct Case {
    double tau, point_tau, fraction, quality, low, high, experts;
  };
  for (const Case& c :
       {Case{-1, 0, 1, 0.9, 0.8, 0.95, 8}, Case{0, 0, 1, 0.9, 0.8, 0.95, 8},
        Case{0.1, 0.1, 0.8, 0.85, 0.75, 0.9, 6}, Case{0.2, 0.2, 0.6, 0.8, 0.7, 0.85, 4},
        Case{0.5, 0.5, 0.45, 0.575, 0.475, 0.625, 2.5}, Case{0.6, 0.6, 0.4, 0.5, 0.4, 0.55, 2},
        Case{1, 0.6, 0.4, 0.5, 0.4, 0.55, 2}}) {
    SCOPED_TRACE(c.tau);
    const CalibrationPoint point = Curve().At(c.tau);
    EXPECT_DOUBLE_EQ(point.tau, c.point_tau);
    EXPECT_DOUBLE_EQ(point.flop_fraction, c.fraction);
    EXPECT_DOUBLE_EQ(point.quality, c.quality);
    EXPECT_DOUBLE_EQ(point.quality_low, c.low);
    EXPECT_DOUBLE_EQ(point.quality_high, c.high);
    EXPECT_THAT(point.experts_run, testing::ElementsAre(testing::DoubleEq(c.experts),
                                                        testing::DoubleEq(c.experts / 2)));
  }
}

TEST(CalibrationTest, FindsTheSmallestTauForAFraction) {
  struct Case {
    double fraction, tau;
  };
  for (const Case& c : {Case{1.5, 0}, Case{1, 0}, Case{0.8, 0.1}, Case{0.6, 0.2}, Case{0.5, 0.4},
                        Case{0.4, 0.6}, Case{0.39, 1}, Case{0, 1}}) {
    EXPECT_NEAR(Curve().TauForFraction(c.fraction), c.tau, 1e-12) << c.fraction;
  }
}

TEST(CalibrationTest, TakesTheFirstCrossingOfACurveThatRises) {
  Calibration curve = Curve();
  curve.points = {{0, 1, 0, 0, 0, {}},
                  {0.1, 0.7, 0, 0, 0, {}},
                  {0.2, 0.8, 0, 0, 0, {}},
                  {0.3, 0.8, 0, 0, 0, {}},
                  {0.4, 0.5, 0, 0, 0, {}}};
  EXPECT_NEAR(curve.TauForFraction(0.85), 0.05, 1e-12);
  EXPECT_NEAR(curve.TauForFraction(0.75), 0.1 * 0.25 / 0.3, 1e-12);
  EXPECT_NEAR(curve.TauForFraction(0.7), 0.1, 1e-12);
  EXPECT_NEAR(curve.TauForFraction(0.65), 0.35, 1e-12);
  for (double fraction = 0.5; fraction <= 1; fraction += 0.01) {
    EXPECT_LE(curve.At(curve.TauForFraction(fraction)).flop_fraction, fraction + 1e-12);
  }
}

TEST(CalibrationTest, SurvivesEqualTaus) {
  Calibration curve = Curve();
  curve.points[1].tau = 0;
  EXPECT_EQ(curve.At(0).flop_fraction, 0.6);
}

}  // namespace
}  // namespace dimmer
