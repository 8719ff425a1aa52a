#include "training/trainer.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/training/test_trainee.h"
#include "training/accuracy.h"

namespace dimmer {
namespace {

class TrainerTest : public testing::Test {
 protected:
  TrainerTest() {
    bert_.labels = 2;
    options_.epochs = 6;
    options_.batch_size = 16;
    options_.learning_rate = 2e-3;
    options_.checkpoint_steps = 7;
  }

  // Trains from the start, or from `state`; returns the reports, and the weights in `weights`.
  absl::StatusOr<std::vector<EpochReport>> Train(const std::string& state,
                                                 std::vector<torch::Tensor>* weights,
                                                 std::optional<uint64_t> stop_at = std::nullopt,
                                                 const std::string& fingerprint = "f") {
    BertTrainee model(ShapeOf(bert_), WeightsOf(bert_));
    TrainCallbacks callbacks;
    callbacks.on_start = [&](uint64_t done, uint64_t) { resumed_from_ = done; };
    if (stop_at.has_value()) callbacks.stop = [&](uint64_t step) { return step == *stop_at; };
    FixedRows rows(training_);
    const EpochCheck check{"accuracy", false,
                           [this](const Trainee& trained) { return Accuracy(trained, check_, 2); }};
    auto reports = dimmer::Train(model, rows, check, options_, {directory_.Sub(state), fingerprint},
                                 callbacks);
    weights->clear();
    for (const Parameter& parameter : model.parameters()) {
      weights->push_back(parameter.value.detach());
    }
    return reports;
  }

  static bool Same(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
    for (size_t i = 0; i < a.size(); ++i) {
      if (!torch::equal(a[i], b[i])) return false;
    }
    return a.size() == b.size();
  }

  TestBert bert_;
  TrainOptions options_;
  const TempDirectory directory_;
  const std::vector<Example> training_ = FindTheToken(bert_, 400, 1);
  const std::vector<Example> check_ = FindTheToken(bert_, 100, 2);
  uint64_t resumed_from_ = 0;
};

TEST_F(TrainerTest, LearnsTheTask) {
  std::vector<torch::Tensor> weights;
  const auto reports = Train("a", &weights);
  ASSERT_TRUE(reports.ok()) << reports.status();
  ASSERT_EQ(reports->size(), 6);
  EXPECT_LT(reports->back().loss, 0.5 * reports->front().loss);
  EXPECT_GT(reports->back().quality, 0.9);
}

TEST_F(TrainerTest, ThePenaltyMakesActivationsSparser) {
  std::vector<torch::Tensor> weights;
  options_.alpha = 0;
  const auto plain = Train("plain", &weights);
  options_.alpha = 0.05;
  const auto sparse = Train("sparse", &weights);
  ASSERT_TRUE(plain.ok() && sparse.ok());
  EXPECT_LT(sparse->back().penalty, 0.75 * plain->back().penalty);
  for (size_t l = 0; l < bert_.layers; ++l) {
    EXPECT_LT(sparse->back().active[l], plain->back().active[l]);
  }
}

TEST_F(TrainerTest, TheSameSeedGivesTheSameBits) {
  std::vector<torch::Tensor> a;
  std::vector<torch::Tensor> b;
  std::vector<torch::Tensor> c;
  ASSERT_TRUE(Train("a", &a).ok());
  ASSERT_TRUE(Train("b", &b).ok());
  options_.seed = 2;
  ASSERT_TRUE(Train("c", &c).ok());
  EXPECT_TRUE(Same(a, b));
  EXPECT_FALSE(Same(a, c));
}

TEST_F(TrainerTest, AnInterruptedRunEndsWithTheSameBits) {
  std::vector<torch::Tensor> whole;
  const auto reports = Train("whole", &whole);
  ASSERT_TRUE(reports.ok());
  std::vector<torch::Tensor> resumed;
  for (uint64_t stop : {10, 40, 41}) {
    EXPECT_EQ(Train("cut", &resumed, stop).status().code(), absl::StatusCode::kCancelled);
  }
  const auto again = Train("cut", &resumed);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(resumed_from_, 35);  // the last multiple of checkpoint_steps before 41
  EXPECT_TRUE(Same(whole, resumed));
  ASSERT_EQ(again->size(), reports->size());
  for (size_t i = 0; i < reports->size(); ++i) {
    EXPECT_EQ(ToJson((*again)[i], "accuracy", "hoyer"), ToJson((*reports)[i], "accuracy", "hoyer"));
  }
}

// The reports that a training with this quality after each epoch gives, and the weights it ends
// with.
TEST_F(TrainerTest, KeepsTheBestEpochAndStopsWithoutABetterOne) {
  options_.keep_best = true;
  options_.patience = 2;
  const std::vector<double> qualities = {3, 2, 2.5, 2.2, 1, 0.5};
  std::vector<torch::Tensor> at_best;
  BertTrainee model(ShapeOf(bert_), WeightsOf(bert_));
  const auto run = [&](std::optional<uint64_t> stop_at) {
    size_t epoch = 0;
    FixedRows rows(training_);
    TrainCallbacks callbacks;
    callbacks.on_start = [&](uint64_t done, uint64_t) { epoch = done / 25; };
    if (stop_at.has_value()) callbacks.stop = [&](uint64_t step) { return step == *stop_at; };
    const EpochCheck check{"loss", true, [&](const Trainee& trained) {
                             if (epoch == 1 && at_best.empty()) {
                               for (const Parameter& parameter : trained.parameters()) {
                                 at_best.push_back(parameter.value.detach().clone());
                               }
                             }
                             return qualities[epoch++];
                           }};
    return dimmer::Train(model, rows, check, options_, {directory_.Sub("best"), "f"}, callbacks);
  };
  EXPECT_EQ(run(80).status().code(), absl::StatusCode::kCancelled);  // in the fourth epoch
  model = BertTrainee(ShapeOf(bert_), WeightsOf(bert_));
  const auto reports = run(std::nullopt);
  ASSERT_TRUE(reports.ok()) << reports.status();
  EXPECT_EQ(reports->size(), 4);  // the second is the best, two more were worse
  EXPECT_EQ(BestEpoch(*reports, true), 1);
  std::vector<torch::Tensor> weights;
  for (const Parameter& parameter : model.parameters()) weights.push_back(parameter.value.detach());
  EXPECT_TRUE(Same(weights, at_best));
}

TEST_F(TrainerTest, IgnoresTheStateOfOtherInputs) {
  std::vector<torch::Tensor> weights;
  EXPECT_FALSE(Train("s", &weights, 20, "other").ok());
  ASSERT_TRUE(Train("s", &weights).ok());
  EXPECT_EQ(resumed_from_, 0);
}

TEST_F(TrainerTest, ReportsAStateThatCannotBeWritten) {
  std::vector<torch::Tensor> weights;
  EXPECT_FALSE(Train("no/such/folder", &weights).ok());
}

TEST(ScheduleTest, WarmsUpThenFallsToZero) {
  EXPECT_LT(LearningRateFactor(0, 100, 0.1), 0.2);
  EXPECT_NEAR(LearningRateFactor(10, 100, 0.1), 1, 1e-9);
  EXPECT_NEAR(LearningRateFactor(55, 100, 0.1), 0.5, 1e-9);
  EXPECT_LT(LearningRateFactor(99, 100, 0.1), 0.001);
}

TEST(ScheduleTest, AlphaGrowsThenHolds) {
  EXPECT_EQ(AlphaFactor(0, 100, 0.5), 0);
  EXPECT_DOUBLE_EQ(AlphaFactor(25, 100, 0.5), 0.5);
  EXPECT_EQ(AlphaFactor(50, 100, 0.5), 1);
  EXPECT_EQ(AlphaFactor(99, 100, 0.5), 1);
  EXPECT_EQ(AlphaFactor(0, 100, 0), 1);
}

TEST(DealOutTest, BalancesTokensAndLosesNoRow) {
  TestBert bert;
  const std::vector<Example> examples = FindTheToken(bert, 50, 3);
  const std::vector<uint32_t> rows = Permutation(50, 1);
  const auto parts = DealOut(examples, rows, 3);
  std::vector<uint32_t> all;
  std::vector<size_t> tokens;
  for (const auto& part : parts) {
    all.insert(all.end(), part.begin(), part.end());
    size_t sum = 0;
    for (uint32_t row : part) sum += examples[row].ids.size();
    tokens.push_back(sum);
  }
  std::sort(all.begin(), all.end());
  for (uint32_t i = 0; i < 50; ++i) EXPECT_EQ(all[i], i);
  const auto [least, most] = std::minmax_element(tokens.begin(), tokens.end());
  EXPECT_LE(*most - *least, 9);  // the longest row
}

}  // namespace
}  // namespace dimmer
