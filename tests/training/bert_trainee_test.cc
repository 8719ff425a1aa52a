#include "training/bert_trainee.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "engine/layers/workspace.h"
#include "engine/models/model.h"
#include "tests/training/test_trainee.h"

namespace dimmer {
namespace {

PackedBatch BatchOf(const TestBert& bert, const std::vector<size_t>& lengths) {
  PackedBatch batch;
  for (size_t i = 0; i < lengths.size(); ++i) {
    Example example;
    example.ids = RandomIds(bert, lengths[i], static_cast<uint32_t>(i + 1));
    for (size_t t = 0; t < lengths[i]; ++t) example.type_ids.push_back(t > lengths[i] / 2 ? 1 : 0);
    example.label = static_cast<int32_t>(i % bert.labels);
    batch.Add(example);
  }
  return batch;
}

// The trainer and the server must compute the same function.
TEST(BertTraineeTest, AgreesWithTheEngine) {
  TestBert bert;
  bert.hidden_act = "relu";
  const TempDirectory directory;
  WriteTestBert(bert, directory.path());
  const auto package = Package::Open(directory.path());
  ASSERT_TRUE(package.ok()) << package.status();
  const auto model = LoadModel(*package);
  ASSERT_TRUE(model.ok()) << model.status();

  const PackedBatch batch = BatchOf(bert, {1, 9, 4, 30});
  const BertTrainee trainee(ShapeOf(bert), WeightsOf(bert));
  const torch::Tensor logits = trainee.Forward(batch, std::nullopt).logits.detach();

  ThreadPool pool(1);
  Workspace workspace;
  StepContext context{pool, workspace, nullptr};
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    Sequence sequence;
    for (int32_t t = batch.offsets[s]; t < batch.offsets[s + 1]; ++t) {
      sequence.ids.push_back(static_cast<int32_t>(batch.ids[t]));
      sequence.type_ids.push_back(static_cast<int32_t>(batch.type_ids[t]));
    }
    Sequence* const list[] = {&sequence};
    (*model)->Forward(list, context);
    ASSERT_TRUE(sequence.status.ok()) << sequence.status;
    for (uint32_t c = 0; c < bert.labels; ++c) {
      EXPECT_NEAR(logits[s][c].item<float>(), sequence.logits[c], 1e-4) << s << " " << c;
    }
  }
}

TEST(BertTraineeTest, ASequenceDoesNotSeeItsNeighbours) {
  TestBert bert;
  const BertTrainee trainee(ShapeOf(bert), WeightsOf(bert));
  const torch::Tensor alone = trainee.Forward(BatchOf(bert, {6}), std::nullopt).logits;
  const torch::Tensor among = trainee.Forward(BatchOf(bert, {6, 12, 3}), std::nullopt).logits;
  EXPECT_TRUE(torch::allclose(alone[0], among[0], 1e-5, 1e-5));
}

// The whole graph, custom functions included, against differences of the loss.
TEST(BertTraineeTest, GradientMatchesFiniteDifferences) {
  TestBert bert;
  bert.layers = 1;
  BertTrainee trainee(ShapeOf(bert), WeightsOf(bert));
  const PackedBatch batch = BatchOf(bert, {5, 2, 7});
  const torch::Tensor labels = torch::tensor(at::ArrayRef<int64_t>(batch.labels), torch::kInt64);
  const auto loss = [&] {
    const TrainForward forward = trainee.Forward(batch, 11);  // dropout on, its masks fixed
    return at::cross_entropy_loss(forward.logits, labels) + forward.penalty * 0.01;
  };
  std::vector<torch::Tensor> inputs;
  for (Parameter& parameter : trainee.parameters()) {
    if (parameter.trained) inputs.push_back(parameter.value);
  }
  const auto gradients = torch::autograd::grad({loss()}, inputs);
  const at::NoGradGuard frozen;
  int checked = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    // One direction per tensor: the gradient itself, where the slope is its norm.
    const double norm = gradients[i].norm().item<double>();
    if (norm < 1e-3) continue;  // e.g. the key's bias, which the softmax cancels
    const torch::Tensor direction = gradients[i] / norm;
    constexpr double kStep = 1e-3;
    inputs[i].add_(direction, kStep);
    const double up = loss().item<double>();
    inputs[i].add_(direction, -2 * kStep);
    const double down = loss().item<double>();
    inputs[i].add_(direction, kStep);
    // fp32 losses and ReLU's kinks allow no more than a few percent.
    EXPECT_NEAR((up - down) / (2 * kStep) / norm, 1, 0.05) << i;
    ++checked;
  }
  EXPECT_GE(checked, 15);
}

TEST(BertTraineeTest, FreezesTheEmbeddingsOnly) {
  TestBert bert;
  const BertTrainee trainee(ShapeOf(bert), WeightsOf(bert));
  for (const Parameter& parameter : trainee.parameters()) {
    const bool embedding = parameter.name.find("embeddings") != std::string::npos;
    EXPECT_EQ(parameter.trained, !embedding) << parameter.name;
    EXPECT_EQ(parameter.decayed, parameter.value.dim() > 1) << parameter.name;
  }
}

}  // namespace
}  // namespace dimmer
