#include "training/gpt2_trainee.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <memory>

#include "engine/models/model.h"
#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "training/base_model.h"
#include "training/engine_scorer.h"
#include "training/random.h"

namespace dimmer {
namespace {

Example TextExample(const std::vector<int32_t>& ids) {
  Example example;
  example.ids.assign(ids.begin(), ids.end() - 1);
  example.next_ids.assign(ids.begin() + 1, ids.end());
  return example;
}

Gpt2Shape SmallShape() {
  return {.width = 24,
          .layers = 2,
          .heads = 3,
          .hidden = 40,
          .vocab = 50,
          .positions = 64,
          .embedding_dropout = 0.2,
          .attention_dropout = 0.2,
          .residual_dropout = 0.2};
}

// Weights far from the small ones of a fresh model, so that attention is not almost uniform.
WeightMap LoudWeights(const Gpt2Shape& shape) {
  WeightMap weights = DrawGpt2(shape, 3);
  RandomStream random(4);
  for (auto& [name, values] : weights) {
    for (float& value : values) value += static_cast<float>(0.2 * random.Normal());
  }
  return weights;
}

PackedBatch RandomBatch(const Gpt2Shape& shape, const std::vector<size_t>& lengths) {
  PackedBatch batch;
  for (const size_t length : lengths) {
    RandomStream random(RandomKey({9, length}));
    std::vector<int32_t> ids(length + 1);
    for (int32_t& id : ids) id = static_cast<int32_t>(random.Below(shape.vocab));
    batch.Add(TextExample(ids));
  }
  return batch;
}

// Logits, losses and gradients against `transformers` (tests/golden/make_trainee_gpt2.py).
class Gpt2GoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string folder = DIMMER_SOURCE_DIR "/tests/golden/trainee_gpt2";
    auto base = LoadBaseLanguageModel(folder);
    ASSERT_TRUE(base.ok()) << base.status();
    model_ = std::make_unique<Gpt2Trainee>(std::get<Gpt2Shape>(base->shape), base->weights);
    const auto text = ReadTextFile(folder + "/answers.json", 1 << 20);
    ASSERT_TRUE(text.ok()) << text.status();
    answers_ = nlohmann::json::parse(*text);
    for (const nlohmann::json& answer : answers_["texts"]) {
      batch_.Add(TextExample(answer["ids"].get<std::vector<int32_t>>()));
    }
  }
  std::unique_ptr<Gpt2Trainee> model_;
  nlohmann::json answers_;
  PackedBatch batch_;
};

TEST_F(Gpt2GoldenTest, GivesTheLogitsAndLossesOfTransformers) {
  const std::vector<float> losses = model_->TokenLosses(batch_);
  size_t t = 0;
  for (const nlohmann::json& answer : answers_["texts"]) {
    for (const double want : answer["losses"]) EXPECT_NEAR(losses[t++], want, 1e-4 * (1 + want));
    // The last id predicts nothing here; ask for its logits alone.
    PackedBatch whole;
    Example example = TextExample(answer["ids"].get<std::vector<int32_t>>());
    example.ids.push_back(answer["ids"].back());
    whole.Add(example);
    const torch::Tensor logits = model_->Logits(whole)[-1];
    for (int64_t i = 0; i < logits.size(0); ++i) {
      EXPECT_NEAR(logits[i].item<float>(), answer["last_logits"][i].get<double>(), 1e-3);
    }
  }
  EXPECT_EQ(t, losses.size());
}

TEST_F(Gpt2GoldenTest, GivesTheGradientsOfTransformers) {
  const TrainForward forward = model_->Forward(batch_, std::nullopt);
  std::vector<torch::Tensor> inputs;
  for (const Parameter& parameter : model_->parameters()) inputs.push_back(parameter.value);
  const auto gradients =
      torch::autograd::grad({forward.loss / static_cast<double>(batch_.targets())}, inputs);
  ASSERT_EQ(answers_["gradients"].size(), inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string& name = model_->parameters()[i].name;
    const nlohmann::json& want = answers_["gradients"][name];
    const torch::Tensor flat = gradients[i].flatten();
    torch::Tensor signs = torch::ones_like(flat);
    signs.slice(0, 1, {}, 2).fill_(-1);
    const double norm = want["norm"];
    EXPECT_NEAR(flat.norm().item<double>(), norm, 1e-4 * norm + 1e-6) << name;
    EXPECT_NEAR((flat * signs).sum().item<double>(), want["product"].get<double>(),
                2e-4 * norm * std::sqrt(static_cast<double>(flat.numel())) + 1e-6)
        << name;
  }
}

TEST(Gpt2TraineeTest, ATokenSeesNeitherLaterOnesNorOtherSequences) {
  const Gpt2Shape shape = SmallShape();
  const Gpt2Trainee model(shape, LoudWeights(shape));
  const std::vector<float> alone = model.TokenLosses(RandomBatch(shape, {37}));
  const std::vector<float> among = model.TokenLosses(RandomBatch(shape, {5, 37, 64}));
  for (size_t t = 0; t < 37; ++t) EXPECT_NEAR(among[5 + t], alone[t], 1e-4) << t;
  PackedBatch changed = RandomBatch(shape, {37});
  changed.ids[30] = (changed.ids[30] + 1) % shape.vocab;
  const torch::Tensor before = model.Logits(RandomBatch(shape, {37}));
  const torch::Tensor after = model.Logits(changed);
  EXPECT_TRUE(torch::allclose(before.slice(0, 0, 30), after.slice(0, 0, 30), 1e-5, 1e-5));
  EXPECT_FALSE(torch::allclose(before[30], after[30], 1e-2, 1e-2));
}

// With dropout and the penalty, against differences of the loss.
TEST(Gpt2TraineeTest, GradientMatchesFiniteDifferences) {
  Gpt2Shape shape = SmallShape();
  shape.layers = 1;
  Gpt2Trainee model(shape, LoudWeights(shape));
  const PackedBatch batch = RandomBatch(shape, {5, 33, 18});
  const auto loss = [&] {
    const TrainForward forward = model.Forward(batch, 11);  // dropout on, its masks fixed
    return forward.loss / static_cast<double>(batch.targets()) + forward.penalty * 0.001;
  };
  std::vector<torch::Tensor> inputs;
  for (const Parameter& parameter : model.parameters()) inputs.push_back(parameter.value);
  const auto gradients = torch::autograd::grad({loss()}, inputs);
  const at::NoGradGuard frozen;
  int checked = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    // One direction per tensor: the gradient itself, where the slope is its norm.
    const double norm = gradients[i].norm().item<double>();
    if (norm < 1e-2) continue;
    const torch::Tensor direction = gradients[i] / norm;
    constexpr double kStep = 2e-3;
    inputs[i].detach().add_(direction, kStep);
    const double up = loss().item<double>();
    inputs[i].detach().add_(direction, -2 * kStep);
    const double down = loss().item<double>();
    inputs[i].detach().add_(direction, kStep);
    // fp32 losses and ReLU's kinks allow no more than a few percent.
    EXPECT_NEAR((up - down) / (2 * kStep) / norm, 1, 0.05) << model.parameters()[i].name;
    ++checked;
  }
  EXPECT_GE(checked, 12);
}

// The trainer and the server must compute the same function.
TEST_F(Gpt2GoldenTest, AgreesWithTheEngine) {
  const auto package = Package::Open(DIMMER_SOURCE_DIR "/tests/golden/trainee_gpt2");
  ASSERT_TRUE(package.ok()) << package.status();
  const auto model = LoadModel(*package);
  ASSERT_TRUE(model.ok()) << model.status();
  std::vector<std::vector<int32_t>> windows;
  for (const nlohmann::json& answer : answers_["texts"]) windows.push_back(answer["ids"]);
  const auto scores = EngineScorer(**model)(windows, 0);
  ASSERT_TRUE(scores.ok()) << scores.status();
  const std::vector<float> losses = model_->TokenLosses(batch_);
  for (size_t s = 0; s < windows.size(); ++s) {
    double want = 0;
    for (int32_t t = batch_.offsets[s]; t < batch_.offsets[s + 1]; ++t) want += losses[t];
    EXPECT_NEAR(scores->nats[s], want, 1e-4 * (1 + want)) << s;
  }
}

TEST(Gpt2ShapeTest, ReadsBackItsOwnConfig) {
  const Gpt2Shape shape = SmallShape();
  const auto read = Gpt2ShapeOf(Gpt2ConfigJson(shape), "config.json");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(Gpt2ConfigJson(*read), Gpt2ConfigJson(shape));
  nlohmann::json untied = Gpt2ConfigJson(shape);
  untied["tie_word_embeddings"] = false;
  EXPECT_EQ(Gpt2ShapeOf(untied, "c").status().code(), absl::StatusCode::kUnimplemented);
  nlohmann::json uneven = Gpt2ConfigJson(shape);
  uneven["n_head"] = 7;
  EXPECT_EQ(Gpt2ShapeOf(uneven, "c").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace dimmer
