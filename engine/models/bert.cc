#include "engine/models/bert.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace dimmer {

Bert::Bert(BertWeights weights, ModelInfo info)
    : weights_(std::move(weights)), info_(std::move(info)) {}

void Bert::Forward(std::span<Sequence* const> sequences, StepContext& context) const {
  RunningBatch batch(info_, weights_.config.type_vocab_size, sequences, context.stats);
  if (batch.empty()) return;  // none is left: all were refused
  const size_t d = info_.width;
  const size_t stride = PaddedWidth(d);
  float* x = context.workspace.Floats(Workspace::kState, batch.tokens() * stride);
  float* y = context.workspace.Floats(Workspace::kState2, batch.tokens() * stride);

  Embed(batch, x, context);  // x [tokens, d]
  weights_.embedding_norm.Apply(x, batch.tokens(), stride, x, context.pool);
  for (const BertBlock& block : weights_.blocks) {
    batch.DropStopped(x, stride);  // cancelled, late
    if (batch.empty()) return;
    block.attention.Apply(x, batch.rows(), y, context.pool, context.workspace);  // y = x + A(x)
    block.attention_norm.Apply(y, batch.tokens(), stride, y, context.pool);
    batch.PlanModule(block.ffn.module);
    block.ffn.layer.Apply(y, /*residual=*/y, x, batch.moe(), context.pool, context.workspace,
                          batch.stats(block.ffn.module));  // x = y + FFN(y)
    block.ffn_norm.Apply(x, batch.tokens(), stride, x, context.pool);
    batch.AccountModule(block.ffn.module);
  }
  batch.DropStopped(x, stride);
  RunHeads(batch, x, context);
}

void Bert::Embed(const RunningBatch& batch, float* x, StepContext& context) const {
  const size_t stride = PaddedWidth(info_.width);
  std::memset(x, 0, batch.tokens() * stride * sizeof(float));
  context.pool.ParallelFor(batch.size(), [&](size_t i, size_t) {
    const Sequence& sequence = batch.sequence(i);
    float* row = x + batch.rows()[i].first * stride;
    for (size_t t = 0; t < sequence.ids.size(); ++t, row += stride) {
      weights_.words.AddRow(static_cast<size_t>(sequence.ids[t]), row);
      weights_.positions.AddRow(t, row);
      const int32_t type = sequence.type_ids.empty() ? 0 : sequence.type_ids[t];
      weights_.types.AddRow(static_cast<size_t>(type), row);
    }
  });
}

// Mean over the tokens, L2-normalised: what sentence encoders of this family are trained for.
static std::vector<float> MeanEmbedding(const float* x, size_t stride, size_t tokens, size_t d) {
  std::vector<float> mean(d);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t c = 0; c < d; ++c) mean[c] += x[t * stride + c];
  }
  double squares = 0;
  for (float& value : mean) {
    value /= static_cast<float>(tokens);
    squares += double{value} * value;
  }
  const auto scale = static_cast<float>(1.0 / std::max(std::sqrt(squares), 1e-12));
  for (float& value : mean) value *= scale;
  return mean;
}

void Bert::RunHeads(RunningBatch& batch, const float* x, StepContext& context) const {
  const size_t d = info_.width;
  const size_t stride = PaddedWidth(d);
  std::vector<uint32_t> first_tokens;  // of the sequences to classify
  for (size_t i = 0; i < batch.size(); ++i) {
    if (batch.sequence(i).task == Task::kClassification) {
      first_tokens.push_back(static_cast<uint32_t>(batch.rows()[i].first));
    }
  }
  const float* logits = nullptr;
  size_t classes = 0;
  if (!first_tokens.empty()) {
    classes = weights_.head->classifier.outputs();
    const size_t count = first_tokens.size();
    float* pooled =
        context.workspace.Floats(Workspace::kHead, count * (stride + PaddedWidth(classes)));
    float* out = pooled + count * stride;
    weights_.head->pooler.Apply({x, stride, first_tokens.data()}, count, Activation::kTanh, pooled,
                                stride, context.pool);
    weights_.head->classifier.Apply({pooled, stride, nullptr}, count, Activation::kNone, out,
                                    PaddedWidth(classes), context.pool);
    logits = out;
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    Sequence& sequence = batch.sequence(i);
    if (sequence.task == Task::kClassification) {
      sequence.logits.assign(logits, logits + classes);
      logits += PaddedWidth(classes);
    } else {
      sequence.embedding =
          MeanEmbedding(x + batch.rows()[i].first * stride, stride, sequence.ids.size(), d);
    }
    batch.Finish(i);
  }
}

}  // namespace dimmer
