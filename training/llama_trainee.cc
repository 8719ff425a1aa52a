#include "training/llama_trainee.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "training/graph_ops.h"

namespace dimmer {
namespace {

using torch::Tensor;

// x [tokens, heads, head_dim]; the second half of a head is the imaginary part of the first, as in
// `transformers`.
Tensor Rotate(const Tensor& x, const Tensor& cosines, const Tensor& sines) {
  const int64_t half = x.size(2) / 2;
  const Tensor turned = at::cat({-x.narrow(2, half, half), x.narrow(2, 0, half)}, 2);
  return x * cosines + turned * sines;
}

}  // namespace

LlamaTrainee::LlamaTrainee(const LlamaShape& shape, WeightMap weights, const Sparsity& sparsity)
    : LanguageTrainee(LayoutOf(shape), std::move(weights), sparsity), shape_(shape) {
  words_ = At("model.embed_tokens.weight");
  head_ = shape.tied_head ? words_ : At("lm_head.weight");
  final_norm_ = At("model.norm.weight");
  for (int64_t l = 0; l < shape.layers; ++l) {
    const std::string block = fmt::format("model.layers.{}.", l);
    blocks_.push_back({.attention_norm = At(block + "input_layernorm.weight"),
                       .query = At(block + "self_attn.q_proj.weight"),
                       .key = At(block + "self_attn.k_proj.weight"),
                       .value = At(block + "self_attn.v_proj.weight"),
                       .attention_out = At(block + "self_attn.o_proj.weight"),
                       .ffn_norm = At(block + "post_attention_layernorm.weight"),
                       .gate = At(block + "mlp.gate_proj.weight"),
                       .up = At(block + "mlp.up_proj.weight"),
                       .down = At(block + "mlp.down_proj.weight")});
  }
}

LlamaTrainee::Rotation LlamaTrainee::RotationOf(const PackedBatch& batch) const {
  const int64_t half = shape_.head_dim / 2;
  Rotation rotation{torch::empty({batch.tokens(), 1, shape_.head_dim}),
                    torch::empty({batch.tokens(), 1, shape_.head_dim})};
  float* cosines = rotation.cosines.data_ptr<float>();
  float* sines = rotation.sines.data_ptr<float>();
  for (int64_t t = 0; t < batch.tokens(); ++t) {
    for (int64_t i = 0; i < half; ++i) {
      const double frequency = std::pow(
          shape_.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(shape_.head_dim));
      const double angle = static_cast<double>(batch.positions[t]) * frequency;
      const int64_t at = t * shape_.head_dim + i;
      cosines[at] = cosines[at + half] = static_cast<float>(std::cos(angle));
      sines[at] = sines[at + half] = static_cast<float>(std::sin(angle));
    }
  }
  return rotation;
}

Tensor LlamaTrainee::Normalize(const Tensor& x, const Tensor& weight) const {
  return x * at::rsqrt(x.square().mean(1, true) + shape_.norm_epsilon) * weight;
}

Tensor LlamaTrainee::Attend(const Block& block, const Tensor& x, const PackedBatch& batch,
                            const Rotation& rotation) const {
  const Tensor normal = Normalize(x, block.attention_norm);
  const auto heads_of = [&](const Tensor& weight, int64_t heads) {
    return at::linear(normal, weight).reshape({-1, heads, shape_.head_dim});
  };
  const int64_t group = shape_.heads / shape_.kv_heads;
  const Tensor q = Rotate(heads_of(block.query, shape_.heads), rotation.cosines, rotation.sines);
  const Tensor k = Rotate(heads_of(block.key, shape_.kv_heads), rotation.cosines, rotation.sines)
                       .repeat_interleave(group, 1);
  const Tensor v = heads_of(block.value, shape_.kv_heads).repeat_interleave(group, 1);
  const int64_t width = shape_.heads * shape_.head_dim;
  const Tensor qkv =
      at::cat({q.reshape({-1, width}), k.reshape({-1, width}), v.reshape({-1, width})}, 1);
  const Tensor context = CausalAttend(qkv.contiguous(), batch.offsets, shape_.heads, {});
  return x + at::linear(context, block.attention_out);
}

Tensor LlamaTrainee::Hidden(const PackedBatch& batch, std::optional<uint64_t>,
                            TrainForward& result) const {
  result.active.resize(blocks_.size());
  result.penalty = torch::zeros({});
  const Rotation rotation = RotationOf(batch);
  Tensor x = at::embedding(words_, IndexTensor(batch.ids));
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const Block& block = blocks_[l];
    x = Attend(block, x, batch, rotation);
    const Tensor input = Normalize(x, block.ffn_norm);
    const SparseActivation gate = ActivateGate(at::linear(input, block.gate), sparsity());
    result.active[l] = gate.active;
    result.penalty = result.penalty + gate.penalty;
    x = x + at::linear(gate.values * at::linear(input, block.up), block.down);
  }
  return Normalize(x, final_norm_);
}

std::vector<Tensor> LlamaTrainee::FfnInputs(const PackedBatch& batch,
                                            const HiddenFilter& filter) const {
  const at::NoGradGuard frozen;
  std::vector<Tensor> inputs;
  const Rotation rotation = RotationOf(batch);
  Tensor x = at::embedding(words_, IndexTensor(batch.ids));
  for (const Block& block : blocks_) {
    x = Attend(block, x, batch, rotation);
    inputs.push_back(Normalize(x, block.ffn_norm));
    const Tensor gate = Activated(at::linear(inputs.back(), block.gate), sparsity().activation);
    const Tensor hidden = gate * at::linear(inputs.back(), block.up);
    x = x + at::linear(Filtered(filter, inputs, hidden), block.down);
  }
  return inputs;
}

}  // namespace dimmer
