#include "training/language_measure.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "engine/util/status.h"

namespace dimmer {
namespace {

std::vector<TokenizedDocument> Documents() {
  std::vector<TokenizedDocument> documents;
  for (size_t i = 0; i < 40; ++i) {
    TokenizedDocument document;
    document.ids.assign(3 + i, static_cast<int32_t>(i));
    document.bytes = 10 + i;
    documents.push_back(document);
  }
  return documents;
}

// Two bits for every predicted id, more with tau; half the experts at most.
absl::StatusOr<WindowScores> TwoBits(std::span<const std::vector<int32_t>> windows, double tau) {
  WindowScores scores;
  scores.expert_runs = {0};
  for (const std::vector<int32_t>& window : windows) {
    const uint64_t predicted = window.size() - 1;
    scores.nats.push_back(2 * std::numbers::ln2 * static_cast<double>(predicted) * (1 + tau));
    scores.tokens += predicted;
    scores.dense_flops += 100 * predicted;
    scores.flops += static_cast<uint64_t>(100 * (1 - tau / 2)) * predicted;
    scores.expert_runs[0] += 8 * predicted;
  }
  return scores;
}

LossSweep Sweep() {
  const std::vector<double> taus = {0, 0.005, 0.02, 0.5};
  const std::vector<TokenizedDocument> documents = Documents();
  const auto sweep = MeasureLoss(TwoBits, documents, 16, taus, 2, nullptr);
  EXPECT_TRUE(sweep.ok()) << sweep.status();
  return *sweep;
}

TEST(LanguageMeasureTest, CountsBitsPerByteOfText) {
  const LossSweep sweep = Sweep();
  uint64_t predicted = 0;
  uint64_t bytes = 0;
  for (const TokenizedDocument& document : Documents()) {
    predicted += document.ids.size() - 1;
    bytes += document.bytes;
  }
  EXPECT_EQ(sweep.text.predicted, predicted);
  const double want = 2.0 * static_cast<double>(predicted) / static_cast<double>(bytes);
  EXPECT_NEAR(BitsPerByte(sweep.text, sweep.points[0]), want, 1e-9);
  EXPECT_NEAR(Perplexity(sweep.text, sweep.points[0]), 4, 1e-9);
  EXPECT_NEAR(sweep.points[3].flop_fraction(), 0.75, 1e-9);
  EXPECT_NEAR(sweep.points[3].experts_run[0], 8, 1e-9);
  const Interval interval = BitsPerByteInterval(sweep.text, sweep.points[0]);
  EXPECT_LT(interval.low, want);
  EXPECT_GT(interval.high, want);
  EXPECT_LT(interval.high - interval.low, 0.5 * want);
  // The same factor on every document: no uncertainty is left in a paired comparison.
  const Interval increase = LossIncrease(sweep.points[0], sweep.points[3]);
  EXPECT_NEAR(increase.value, 0.5, 1e-9);
  EXPECT_NEAR(increase.high - increase.low, 0, 1e-9);
}

TEST(LanguageMeasureTest, ChoosesTheLargestTauWithinTheLoss) {
  const LossSweep sweep = Sweep();
  EXPECT_EQ(LastPointWithin(sweep, 0.01), 1);
  EXPECT_EQ(LastPointWithin(sweep, 0), 0);
  EXPECT_EQ(LastPointWithin(sweep, 1), 3);
}

TEST(LanguageMeasureTest, GoesThroughJson) {
  const LossSweep sweep = Sweep();
  const LossSweep back = LossSweepFromJson(nlohmann::json::parse(ToJson(sweep).dump()));
  EXPECT_EQ(ToJson(back), ToJson(sweep));
  const Calibration calibration = CalibrationFrom(back);
  EXPECT_EQ(calibration.metric, kBitsPerByte);
  EXPECT_EQ(calibration.rows, 40);
  EXPECT_EQ(calibration.points.size(), 4);
}

TEST(LanguageMeasureTest, HandsErrorsOn) {
  const std::vector<TokenizedDocument> documents = Documents();
  const std::vector<double> taus = {0};
  const auto failing = [](std::span<const std::vector<int32_t>>,
                          double) -> absl::StatusOr<WindowScores> {
    return absl::InternalError("broken");
  };
  EXPECT_EQ(Message(MeasureLoss(failing, documents, 16, taus, 2, nullptr).status()), "broken");
  EXPECT_FALSE(MeasureLoss(TwoBits, {}, 16, taus, 2, nullptr).ok());
}

}  // namespace
}  // namespace dimmer
