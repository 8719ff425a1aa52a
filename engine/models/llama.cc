#include "engine/models/llama.h"

#include <cstring>

namespace dimmer {

Llama::Llama(LlamaWeights weights, ModelInfo info)
    : weights_(std::move(weights)), info_(std::move(info)) {}

void Llama::Forward(std::span<Sequence* const> sequences, StepContext& context) const {
  DecoderBatch batch(info_, sequences, context);
  if (batch.empty()) return;
  const size_t stride = PaddedWidth(info_.width);
  ThreadPool& pool = context.pool;
  float* x = context.workspace.Floats(Workspace::kState, batch.tokens() * stride);
  float* z = context.workspace.Floats(Workspace::kState2, batch.tokens() * stride);

  Embed(batch, x);  // x [tokens, d]
  for (size_t layer = 0; layer < weights_.blocks.size(); ++layer) {
    const LlamaBlock& block = weights_.blocks[layer];
    batch.DropStopped(x, stride);  // cancelled, late
    if (batch.empty()) return;
    block.attention_norm.Apply(x, batch.tokens(), stride, z, pool);
    block.attention.Apply(z, x, batch.rows(), layer, x, pool, context.workspace);  // x += A(z)
    block.ffn_norm.Apply(x, batch.tokens(), stride, z, pool);
    batch.PlanModule(block.ffn.module);
    block.ffn.layer.Apply(z, x, x, batch.moe(), pool, context.workspace,
                          batch.stats(block.ffn.module));  // x += FFN(z)
    batch.AccountModule(block.ffn.module);
  }
  batch.DropStopped(x, stride);
  FinishStep(batch, x, weights_.final_norm, weights_.head, info_.width, context);
}

void Llama::Embed(const DecoderBatch& batch, float* x) const {
  const size_t stride = PaddedWidth(info_.width);
  std::memset(x, 0, batch.tokens() * stride * sizeof(float));
  for (size_t i = 0; i < batch.size(); ++i) {
    float* row = x + batch.rows()[i].rows.first * stride;
    for (const int32_t id : batch.ids(i)) {
      weights_.head.AddWord(id, row);
      row += stride;
    }
  }
}

}  // namespace dimmer
