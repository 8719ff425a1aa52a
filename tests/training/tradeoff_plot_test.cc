#include "training/tradeoff_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dimmer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TEST(AxisTicksTest, AreRoundAndCoverTheRange) {
  EXPECT_THAT(AxisTicks(36.6, 100, 8), ElementsAre(30, 40, 50, 60, 70, 80, 90, 100));
  EXPECT_THAT(AxisTicks(0, 1, 5), ElementsAre(0, 0.2, 0.4, testing::DoubleEq(0.2 * 3), 0.8, 1));
  EXPECT_THAT(AxisTicks(92.1, 92.9, 4), ElementsAre(92, 92.5, 93));
}

TradeoffPlot Plot() {
  TradeoffPlot plot;
  plot.title = "a < b & c";
  plot.subtitle = "10 rows";
  plot.calibration.metric = "accuracy";
  plot.calibration.points = {{0, 1, 0.93, 0.91, 0.95, {}},
                             {0.1, 0.5, 0.925, 0.9, 0.94, {}},
                             {1, 0.37, 0.6, 0.57, 0.63, {}}};
  plot.reference_point = 1;
  plot.default_tau = 0.1;
  return plot;
}

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(RenderSvgTest, DrawsEveryPointAndTheMarks) {
  const std::string svg = RenderSvg(Plot());
  EXPECT_TRUE(svg.starts_with("<svg "));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_EQ(Count(svg, "<circle"), 3 + 1);  // the default's ring
  EXPECT_EQ(Count(svg, "<polygon"), 1);
  EXPECT_EQ(Count(svg, "<text"), Count(svg, "</text>"));
  EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; c"));
  EXPECT_THAT(svg, HasSubstr("tau 0.1 (default)"));
  EXPECT_THAT(svg, HasSubstr("50.0% of FLOPs at tau 0.1"));
  EXPECT_THAT(svg, HasSubstr("99% of the quality at tau 0"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(RenderSvgTest, IsDeterministic) { EXPECT_EQ(RenderSvg(Plot()), RenderSvg(Plot())); }

TEST(RenderSvgTest, SurvivesAFlatCurve) {
  TradeoffPlot plot = Plot();
  for (CalibrationPoint& point : plot.calibration.points) {
    point.quality = point.quality_low = point.quality_high = 1;
    point.flop_fraction = 1;
  }
  EXPECT_THAT(RenderSvg(plot), Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace dimmer
