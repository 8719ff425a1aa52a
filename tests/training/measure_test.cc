#include "training/measure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/package/package.h"
#include "engine/util/status.h"
#include "tests/models/test_packages.h"

namespace dimmer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(WilsonIntervalTest, MatchesIndependentValues) {
  // From the formula, evaluated in Python.
  const Interval a = WilsonInterval(1395, 1500);
  EXPECT_NEAR(a.value, 0.93, 1e-12);
  EXPECT_NEAR(a.low, 0.915959, 1e-6);
  EXPECT_NEAR(a.high, 0.941844, 1e-6);
  const Interval none = WilsonInterval(0, 10);
  EXPECT_EQ(none.low, 0);
  EXPECT_NEAR(none.high, 0.277533, 1e-6);
  for (uint64_t n = 1; n < 200; ++n) EXPECT_EQ(WilsonInterval(n, n).high, 1) << n;
}

TEST(PairedDifferenceTest, CountsOnlyRowsThatChange) {
  const std::vector<bool> base = {true, true, false, true};
  EXPECT_EQ(PairedDifference(base, base).value, 0);
  EXPECT_EQ(PairedDifference(base, base).low, 0);
  const Interval worse = PairedDifference(base, {true, false, false, true});
  EXPECT_DOUBLE_EQ(worse.value, -0.25);
  EXPECT_LT(worse.low, -0.25);
  EXPECT_GT(worse.high, -0.25);
}

SweepPoint PointOf(double tau, int correct_of_100) {
  SweepPoint point{.tau = tau, .flops = 60, .dense_flops = 100};
  for (int i = 0; i < 100; ++i) point.correct.push_back(i < correct_of_100);
  return point;
}

TEST(LastPointKeepingTest, StopsAtTheFirstPointBelow) {
  const std::vector<SweepPoint> sweep = {PointOf(0, 90), PointOf(0.1, 90), PointOf(0.2, 88),
                                         PointOf(0.3, 90), PointOf(0.4, 50)};
  EXPECT_EQ(LastPointKeeping(sweep, 0.99), 1);  // 0.3 is good again, but 0.2 is not
  EXPECT_EQ(LastPointKeeping(sweep, 0.95), 3);
  EXPECT_EQ(LastPointKeeping(sweep, 0), 4);
}

TEST(CalibrationFromTest, KeepsOrderCostAndInterval) {
  const std::vector<SweepPoint> sweep = {PointOf(0, 90), PointOf(0.5, 80)};
  const Calibration calibration = CalibrationFrom(sweep, 1234);
  EXPECT_EQ(calibration.metric, "accuracy");
  EXPECT_EQ(calibration.rows, 100);
  EXPECT_EQ(calibration.tokens, 1234);
  ASSERT_EQ(calibration.points.size(), 2);
  EXPECT_DOUBLE_EQ(calibration.points[1].flop_fraction, 0.6);
  EXPECT_DOUBLE_EQ(calibration.points[1].quality, 0.8);
  EXPECT_LT(calibration.points[1].quality_low, 0.8);
}

class MeasureSweepTest : public testing::Test {
 protected:
  void SetUp() override {
    bert_.experts = 12;
    bert_.vocabulary = true;
    WriteTestBert(bert_, directory_.path());
    const auto package = Package::Open(directory_.path());
    ASSERT_TRUE(package.ok()) << package.status();
    auto model = LoadModel(*package);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    for (uint32_t i = 0; i < 70; ++i) {
      Example example;
      example.ids = RandomIds(bert_, 3 + i % 9, i);
      example.type_ids.assign(example.ids.size(), 0);
      example.label = static_cast<int32_t>(i % bert_.labels);
      examples_.push_back(example);
    }
  }

  const TempDirectory directory_;
  TestBert bert_;
  std::unique_ptr<Model> model_;
  std::vector<Example> examples_;
};

TEST_F(MeasureSweepTest, CostFallsFromDenseToTheFloor) {
  const std::vector<double> taus = {0, 0.5, 1};
  const auto sweep = MeasureSweep(*model_, examples_, taus, 2, nullptr);
  ASSERT_TRUE(sweep.ok()) << sweep.status();
  EXPECT_EQ((*sweep)[0].flop_fraction(), 1);
  EXPECT_THAT((*sweep)[0].experts_run, ElementsAre(12, 12));
  EXPECT_LT((*sweep)[1].flop_fraction(), 1);
  EXPECT_LT((*sweep)[2].flop_fraction(), (*sweep)[1].flop_fraction());
  uint64_t dense = 0;
  uint64_t floor = 0;
  for (const Example& example : examples_) {
    dense += model_->info().cost.DenseFlops(example.ids.size());
    floor += model_->info().cost.FloorFlops(example.ids.size());
  }
  EXPECT_EQ((*sweep)[0].flops, dense);
  EXPECT_GE((*sweep)[2].flops, floor);
  EXPECT_EQ((*sweep)[0].correct.size(), examples_.size());
}

TEST_F(MeasureSweepTest, DoesNotDependOnThreads) {
  const std::vector<double> taus = {0, 0.3};
  const auto one = MeasureSweep(*model_, examples_, taus, 1, nullptr);
  const auto three = MeasureSweep(*model_, examples_, taus, 3, nullptr);
  for (size_t i = 0; i < taus.size(); ++i) {
    EXPECT_EQ((*one)[i].flops, (*three)[i].flops);
    EXPECT_EQ((*one)[i].correct, (*three)[i].correct);
  }
}

TEST_F(MeasureSweepTest, ReportsTheRowThatFails) {
  examples_[40].ids[0] = 1000000;
  const auto sweep = MeasureSweep(*model_, examples_, std::vector<double>{0}, 1, nullptr);
  ASSERT_FALSE(sweep.ok());
  EXPECT_THAT(std::string(Message(sweep.status())), HasSubstr("row"));
  EXPECT_FALSE(MeasureSweep(*model_, {}, std::vector<double>{0}, 1, nullptr).ok());
}

TEST_F(MeasureSweepTest, TokenizesWithLabelsAndCuts) {
  const auto tokenizer = LoadTokenizer(directory_.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::vector<std::string> labels = {"x", "y"};
  const std::vector<TextRow> rows = {{"a b c d e f", "y", 3}};
  const auto examples = Tokenize(**tokenizer, rows, labels, 5);
  ASSERT_TRUE(examples.ok()) << examples.status();
  EXPECT_EQ((*examples)[0].ids.size(), 5);
  EXPECT_EQ((*examples)[0].label, 1);
  const auto unknown = Tokenize(**tokenizer, std::vector<TextRow>{{"a", "z", 8}}, labels, 5);
  EXPECT_THAT(std::string(Message(unknown.status())), HasSubstr("line 8"));
  EXPECT_THAT(std::string(Message(unknown.status())), HasSubstr("\"z\""));
}

}  // namespace
}  // namespace dimmer
