// What models, describe, set-tau, classify and generate print.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/ctl/classify_view.h"
#include "server/ctl/generate_view.h"
#include "server/ctl/model_view.h"
#include "server/ctl/tau_view.h"

namespace dimmer::ctl {
namespace {

using testing::HasSubstr;
using testing::Not;

v1::Model Emotion() {
  v1::Model model;
  model.set_name("emotion");
  model.set_version("1");
  model.set_ready(true);
  model.set_architecture("BertForSequenceClassification");
  model.add_tasks("classification");
  for (const char* label : {"sadness", "joy", "love"}) model.add_labels(label);
  model.set_converted(true);
  for (uint32_t layer = 0; layer < 2; ++layer) {
    v1::MoeModule& module = *model.add_moe_modules();
    module.set_layer(layer);
    module.set_module("ffn");
    module.set_experts(96);
    module.set_expert_flops(24576);
  }
  model.mutable_gate()->set_kind("dynamic_k");
  model.mutable_settings()->set_default_tau(0.05);
  model.mutable_settings()->set_max_tau(1);
  model.mutable_settings()->set_revision(4);
  v1::Calibration& table = *model.mutable_calibration();
  table.set_metric("accuracy");
  for (const auto& [tau, share, quality] :
       {std::tuple(0.0, 1.0, 0.93), std::tuple(0.1, 0.5, 0.91), std::tuple(1.0, 0.4, 0.7)}) {
    v1::CalibrationPoint& point = *table.add_points();
    point.set_tau(tau);
    point.set_flop_fraction(share);
    point.set_quality(quality);
    point.set_quality_low(quality - 0.01);
    point.set_quality_high(quality + 0.01);
  }
  auto& fields = *model.mutable_provenance()->mutable_fields();
  fields["tool"].set_string_value("dimmer-convert");
  (*fields["settings"].mutable_struct_value()->mutable_fields())["seed"].set_number_value(7);
  fields["history"].mutable_list_value()->add_values()->set_string_value("long");
  return model;
}

TEST(ModelViewTest, Models) {
  v1::ListModelsResponse list;
  *list.add_models() = Emotion();
  v1::Model& broken = *list.add_models();
  broken.set_name("broken");
  broken.set_version("1");
  broken.set_error("model.safetensors: cut\033[2J");
  EXPECT_EQ(Paint(RenderModels(list, 100), false),
            "model    version  state      task            experts      tau  bounds\n"
            "emotion  1        ready      classification     2x96     0.05  [0, 1]\n"
            "broken   1        not ready  model.safetensors: cut?[2J\n");
  EXPECT_EQ(Paint(RenderModels({}, 100), false), "no models\n");
}

TEST(ModelViewTest, Describe) {
  const std::string text = Paint(RenderModel(Emotion(), 100, false), false);
  EXPECT_THAT(text, HasSubstr("emotion, version 1: ready\n"));
  EXPECT_THAT(text, HasSubstr("  labels        sadness, joy, love\n"));
  EXPECT_THAT(text, HasSubstr("96 in the ffn of each of 2 layers; 24.6 kFLOPs per expert"));
  EXPECT_THAT(text, HasSubstr("default 0.05 in [0, 1], revision 4, for good\n"));
  EXPECT_THAT(text, HasSubstr("      0  100.0%  93.0% [92.0, 94.0]      "
                              "########################  the default is past this\n"));
  EXPECT_THAT(text, HasSubstr("    0.1   50.0%  91.0% [90.0, 92.0]      ############\n"));
  EXPECT_THAT(text, HasSubstr("  settings       seed 7\n"));
  EXPECT_THAT(text, HasSubstr("  tool           dimmer-convert\n"));
  EXPECT_THAT(text, Not(HasSubstr("history")));
}

TEST(ModelViewTest, LabelsWrap) {
  for (const Line& line : RenderModel(Emotion(), 30, false)) {
    if (Paint(line, false).find("joy") != std::string::npos) {
      EXPECT_LE(Width(line), 30u);
    }
  }
}

TEST(TauViewTest, PredictsBetweenThePoints) {
  const auto predicted = Predict(Emotion().calibration(), 0.05);
  ASSERT_TRUE(predicted.has_value());
  EXPECT_DOUBLE_EQ(predicted->flop_fraction(), 0.75);
  EXPECT_DOUBLE_EQ(predicted->quality(), 0.92);
  EXPECT_FALSE(Predict({}, 0.05).has_value());
}

TEST(TauViewTest, BeforeAndAfter) {
  const v1::Model model = Emotion();
  TauDifference difference{.model = "emotion", .before = model.settings()};
  difference.after = model.settings();
  difference.after.set_default_tau(0.1);
  difference.after.set_revision(5);
  difference.after.mutable_expires()->set_seconds(60);
  v1::LayerTau& layer = *difference.after.add_layers();
  layer.set_layer(1);
  layer.set_module("ffn");
  layer.set_tau(0.5);
  difference.predicted_before = Predict(model.calibration(), 0.05);
  difference.predicted_after = Predict(model.calibration(), 0.1);
  EXPECT_EQ(
      Paint(RenderTau(difference), false),
      "emotion: revision 5 is in force, until 1970-01-01 00:01:00 UTC\n"
      "                  before                   after\n"
      "  default tau     0.05                  -> 0.1\n"
      "  bounds          [0, 1]                   [0, 1]\n"
      "  layer 1 ffn     as the default        -> 0.5\n"
      "  holds           for good              -> until 1970-01-01 00:01:00 UTC\n"
      "  what the calibration predicts at the default tau (single layers left out of account)\n"
      "  FLOPs of dense  75.0%                 -> 50.0%\n"
      "  accuracy        92.0% [91.0, 93.0]    -> 91.0% [90.0, 92.0]\n");
  difference.dry_run = true;
  EXPECT_THAT(Paint(RenderTau(difference), false), HasSubstr("dry run, nothing was changed"));
  EXPECT_EQ(ToJson(difference)["after"]["predicted"]["flop_fraction"], 0.5);
  difference.predicted_after.reset();
  EXPECT_THAT(Paint(RenderTau(difference), false), HasSubstr("no prediction"));
  EXPECT_TRUE(ToJson(difference)["after"]["predicted"].is_null());
}

TEST(ClassifyViewTest, RowsAndTotal) {
  v1::Classification result;
  for (const auto& [name, score] : {std::pair("joy", 0.982f), std::pair("love", 0.01f)}) {
    v1::Label& label = *result.add_labels();
    label.set_name(name);
    label.set_score(score);
  }
  result.mutable_usage()->set_flops(150);
  result.mutable_usage()->set_dense_flops(300);
  result.mutable_usage()->set_tau(0.05);
  EXPECT_EQ(Paint(ClassifyHeader(), false),
            "answer         score    tau     FLOPs  of dense  text");
  EXPECT_EQ(Paint(RenderResult("so \033 happy", result, 100), false),
            "joy            98.2%  0.050       150       50%  so ? happy\n"
            "love            1.0%\n");
  ClassifyTotal total;
  total.Add(result.usage(), 1);
  EXPECT_EQ(Paint(RenderTotal(total), false),
            "1 text: 150 FLOPs, 50% of dense, 0 us in the model\n");
  EXPECT_EQ(ResultLine("t", result).substr(0, 12), "{\"text\":\"t\",");
}

TEST(GenerateViewTest, HowItEndedAndWhatItCost) {
  v1::GenerateResponse last;
  last.set_finish_reason(v1::END_OF_TEXT);
  last.set_seed(7);
  v1::Usage& usage = *last.mutable_usage();
  usage.set_flops(600'000);
  usage.set_dense_flops(1'000'000);
  usage.set_tau(0.1);
  usage.set_prompt_tokens(4);
  usage.set_output_tokens(11);
  EXPECT_EQ(
      Paint(RenderGenerated(last, {.first = 0.02, .last = 0.12}, true), false),
      "11 tokens after 4, ended by the end of the text: 600.0 kFLOPs, 60% of dense, tau 0.100;"
      " first after 20.0 ms, last after 120 ms: 91.7/s; seed 7\n");
  last.set_finish_reason(v1::BUDGET);
  usage.set_output_tokens(0);
  usage.set_budget_clamped(true);
  EXPECT_EQ(Paint(RenderGenerated(last, {}, false), false),
            "0 tokens after 4, ended by max_flops: 600.0 kFLOPs, 60% of dense, tau 0.100\n"
            "the budget was moved to the operator's bounds or the model's floor\n");
}

}  // namespace
}  // namespace dimmer::ctl
