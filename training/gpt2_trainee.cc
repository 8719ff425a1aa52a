#include "training/gpt2_trainee.h"

#include <fmt/format.h>

#include <utility>

#include "training/graph_ops.h"
#include "training/random.h"

namespace dimmer {
namespace {

using torch::Tensor;

Tensor Affine(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return at::addmm(bias, x, weight);
}

}  // namespace

Gpt2Trainee::Gpt2Trainee(const Gpt2Shape& shape, WeightMap weights, const Sparsity& sparsity)
    : LanguageTrainee(LayoutOf(shape), std::move(weights), sparsity), shape_(shape) {
  words_ = At("transformer.wte.weight");
  positions_ = At("transformer.wpe.weight");
  for (int64_t l = 0; l < shape.layers; ++l) {
    const std::string block = fmt::format("transformer.h.{}.", l);
    blocks_.push_back({.attention_norm = NormAt(block + "ln_1"),
                       .qkv = LinearAt(block + "attn.c_attn"),
                       .attention_out = LinearAt(block + "attn.c_proj"),
                       .ffn_norm = NormAt(block + "ln_2"),
                       .up = LinearAt(block + "mlp.c_fc"),
                       .down = LinearAt(block + "mlp.c_proj")});
  }
  final_norm_ = NormAt("transformer.ln_f");
}

Gpt2Trainee::Linear Gpt2Trainee::LinearAt(const std::string& prefix) const {
  return {At(prefix + ".weight"), At(prefix + ".bias")};
}

Gpt2Trainee::Norm Gpt2Trainee::NormAt(const std::string& prefix) const {
  return {At(prefix + ".weight"), At(prefix + ".bias")};
}

Dropout Gpt2Trainee::DropoutFor(std::optional<uint64_t> key, size_t layer, Site site) const {
  const double rate = site == Site::kEmbedding   ? shape_.embedding_dropout
                      : site == Site::kAttention ? shape_.attention_dropout
                                                 : shape_.residual_dropout;
  if (!key.has_value() || rate == 0) return {};
  return {static_cast<float>(rate), RandomKey({*key, layer, static_cast<uint64_t>(site)})};
}

Tensor Gpt2Trainee::Normalize(const Tensor& x, const Norm& norm) const {
  return at::layer_norm(x, {shape_.width}, norm.weight, norm.bias, shape_.norm_epsilon);
}

Tensor Gpt2Trainee::Embed(const PackedBatch& batch) const {
  return at::embedding(words_, IndexTensor(batch.ids)) +
         at::embedding(positions_, IndexTensor(batch.positions));
}

Tensor Gpt2Trainee::Attend(size_t layer, const Tensor& x, const PackedBatch& batch,
                           std::optional<uint64_t> dropout_key) const {
  const Block& block = blocks_[layer];
  const Tensor qkv = Affine(Normalize(x, block.attention_norm), block.qkv.weight, block.qkv.bias);
  const Tensor context = CausalAttend(qkv, batch.offsets, shape_.heads,
                                      DropoutFor(dropout_key, layer, Site::kAttention));
  const Tensor out = Affine(context, block.attention_out.weight, block.attention_out.bias);
  return x + ApplyDropout(out, DropoutFor(dropout_key, layer, Site::kAttentionOut));
}

Tensor Gpt2Trainee::Hidden(const PackedBatch& batch, std::optional<uint64_t> dropout_key,
                           TrainForward& result) const {
  result.active.resize(blocks_.size());
  result.penalty = torch::zeros({});
  Tensor x = ApplyDropout(Embed(batch), DropoutFor(dropout_key, 0, Site::kEmbedding));
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const Block& block = blocks_[l];
    x = Attend(l, x, batch, dropout_key);
    const SparseActivation hidden =
        Activate(Affine(Normalize(x, block.ffn_norm), block.up.weight, block.up.bias), sparsity());
    result.active[l] = hidden.active;
    result.penalty = result.penalty + hidden.penalty;
    const Tensor out = Affine(hidden.values, block.down.weight, block.down.bias);
    x = x + ApplyDropout(out, DropoutFor(dropout_key, l, Site::kFfnOut));
  }
  return Normalize(x, final_norm_);
}

std::vector<Tensor> Gpt2Trainee::FfnInputs(const PackedBatch& batch,
                                           const HiddenFilter& filter) const {
  const at::NoGradGuard frozen;
  std::vector<Tensor> inputs;
  Tensor x = Embed(batch);
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const Block& block = blocks_[l];
    x = Attend(l, x, batch, std::nullopt);
    inputs.push_back(Normalize(x, block.ffn_norm));
    const Tensor hidden = Filtered(
        filter, inputs,
        Activated(Affine(inputs.back(), block.up.weight, block.up.bias), sparsity().activation));
    x = x + Affine(hidden, block.down.weight, block.down.bias);
  }
  return inputs;
}

}  // namespace dimmer
