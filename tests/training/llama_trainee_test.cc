#include "training/llama_trainee.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "engine/models/model.h"
#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "tests/models/test_packages.h"
#include "training/base_model.h"
#include "training/engine_scorer.h"
#include "training/random.h"
#include "training/route.h"
#include "training/split.h"
#include "training/work_dir.h"

namespace dimmer {
namespace {

LlamaShape SmallShape() {
  return {.width = 24,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 6,
          .hidden = 40,
          .vocab = 50,
          .positions = 64,
          .norm_epsilon = 1e-5,
          .tied_head = false};
}

WeightMap RandomWeights(const LlamaShape& shape) {
  WeightMap weights;
  uint64_t key = 0;
  for (const NamedShape& tensor : LayoutOf(shape).tensors) {
    size_t count = 1;
    for (const int64_t size : tensor.shape) count *= static_cast<size_t>(size);
    RandomStream random(++key);
    const double center = tensor.shape.size() == 1 ? 1 : 0;
    for (size_t i = 0; i < count; ++i) {
      weights[tensor.name].push_back(static_cast<float>(center + 0.25 * random.Normal()));
    }
  }
  return weights;
}

nlohmann::json ConfigOf(const LlamaShape& shape) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_act", "relu"},
          {"hidden_size", shape.width},
          {"num_hidden_layers", shape.layers},
          {"num_attention_heads", shape.heads},
          {"num_key_value_heads", shape.kv_heads},
          {"intermediate_size", shape.hidden},
          {"vocab_size", shape.vocab},
          {"max_position_embeddings", shape.positions},
          {"rms_norm_eps", shape.norm_epsilon},
          {"tie_word_embeddings", shape.tied_head}};
}

std::vector<std::vector<int32_t>> Texts(const LlamaShape& shape) {
  std::vector<std::vector<int32_t>> texts;
  for (const size_t length : {2, 9, 33, 64}) {
    RandomStream random(length);
    std::vector<int32_t>& text = texts.emplace_back(length);
    for (int32_t& id : text) id = static_cast<int32_t>(random.Below(shape.vocab));
  }
  return texts;
}

PackedBatch BatchOf(const std::vector<std::vector<int32_t>>& texts) {
  PackedBatch batch;
  for (const std::vector<int32_t>& text : texts) {
    Example example;
    example.ids.assign(text.begin(), text.end() - 1);
    example.next_ids.assign(text.begin() + 1, text.end());
    batch.Add(example);
  }
  return batch;
}

// The trainer and the server must compute the same function.
TEST(LlamaTraineeTest, AgreesWithTheEngine) {
  for (const bool tied : {false, true}) {
    LlamaShape shape = SmallShape();
    shape.tied_head = tied;
    const WeightMap weights = RandomWeights(shape);
    const TempDirectory directory;
    ASSERT_TRUE(
        SaveWeights(directory.Sub("model.safetensors"), LayoutOf(shape), weights, DType::kF32)
            .ok());
    ASSERT_TRUE(WriteTextFile(directory.Sub("config.json"), ConfigOf(shape).dump()).ok());
    const auto base = LoadBaseLanguageModel(directory.path());
    ASSERT_TRUE(base.ok()) << base.status();
    const LlamaTrainee trainee(std::get<LlamaShape>(base->shape), base->weights);
    const auto package = Package::Open(directory.path());
    ASSERT_TRUE(package.ok()) << package.status();
    const auto model = LoadModel(*package);
    ASSERT_TRUE(model.ok()) << model.status();
    const auto texts = Texts(shape);
    const auto scores = EngineScorer(**model)(texts, 0);
    ASSERT_TRUE(scores.ok()) << scores.status();
    const PackedBatch batch = BatchOf(texts);
    const std::vector<float> losses = trainee.TokenLosses(batch);
    for (size_t s = 0; s < texts.size(); ++s) {
      double want = 0;
      for (int32_t t = batch.offsets[s]; t < batch.offsets[s + 1]; ++t) want += losses[t];
      EXPECT_NEAR(scores->nats[s], want, 1e-4 * (1 + want)) << s;
    }
  }
}

TEST(LlamaTraineeTest, GradientMatchesFiniteDifferences) {
  LlamaShape shape = SmallShape();
  shape.layers = 1;
  LlamaTrainee model(shape, RandomWeights(shape));
  const PackedBatch batch = BatchOf(Texts(shape));
  const auto loss = [&] {
    const TrainForward forward = model.Forward(batch, std::nullopt);
    return forward.loss / static_cast<double>(batch.targets()) + forward.penalty * 0.001;
  };
  std::vector<torch::Tensor> inputs;
  for (const Parameter& parameter : model.parameters()) inputs.push_back(parameter.value);
  const auto gradients = torch::autograd::grad({loss()}, inputs);
  const at::NoGradGuard frozen;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const double norm = gradients[i].norm().item<double>();
    ASSERT_GT(norm, 1e-3) << model.parameters()[i].name;
    const torch::Tensor direction = gradients[i] / norm;
    const double step = std::min(2e-3, 1e-3 / norm);
    inputs[i].detach().add_(direction, step);
    const double up = loss().item<double>();
    inputs[i].detach().add_(direction, -2 * step);
    const double down = loss().item<double>();
    inputs[i].detach().add_(direction, step);
    // fp32 losses and ReLU's kinks allow no more than a few percent.
    EXPECT_NEAR((up - down) / (2 * step) / norm, 1, 0.05) << model.parameters()[i].name;
  }
}

// A gated FFN is split by its gate's rows; the model computes the same afterwards, and the experts'
// norms are those of slabs of gate, up and down together.
TEST(LlamaTraineeTest, SplitsGatedFfns) {
  const LlamaShape shape = SmallShape();
  const ModelLayout layout = LayoutOf(shape);
  const WeightMap before = RandomWeights(shape);
  WeightMap after = before;
  ASSERT_TRUE(SplitIntoExperts(layout, 8, 1, 2, after, nullptr).ok());
  EXPECT_NE(after, before);
  const PackedBatch batch = BatchOf(Texts(shape));
  const std::vector<float> want = LlamaTrainee(shape, before).TokenLosses(batch);
  const LlamaTrainee split(shape, after);
  const std::vector<float> got = split.TokenLosses(batch);
  for (size_t t = 0; t < want.size(); ++t) EXPECT_NEAR(got[t], want[t], 1e-4);

  const FfnWeights ffn = FfnOf(split, 1);
  const torch::Tensor z = split.FfnInputs(batch, {})[1];
  const torch::Tensor norms = ExpertNorms(ffn, 8, z);
  ASSERT_EQ(norms.sizes(), (std::vector<int64_t>{batch.tokens(), 8}));
  for (const int64_t n : {0, 5}) {
    const torch::Tensor hidden = at::relu(at::linear(z, ffn.gate.narrow(0, 5 * n, 5))) *
                                 at::linear(z, ffn.up.narrow(0, 5 * n, 5));
    const torch::Tensor direct =
        at::mm(hidden, ffn.down.narrow(1, 5 * n, 5).t()).square().sum(1).sqrt();
    EXPECT_TRUE(torch::allclose(norms.select(1, n), direct, 1e-3, 1e-4));
  }
}

}  // namespace
}  // namespace dimmer
