#include "training/gpt2_trainee.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <utility>

#include "training/causal_attention.h"
#include "training/cross_entropy.h"
#include "training/graph_ops.h"
#include "training/random.h"

namespace dimmer {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

constexpr int64_t kHeadTokens = 256;  // whose logits exist at a time

Tensor Affine(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return at::addmm(bias, x, weight);
}

std::vector<int32_t> Offsets(const AutogradContext& context) {
  const auto saved = context.saved_data.at("offsets").toIntVector();
  return {saved.begin(), saved.end()};
}

// causal_attention.h as an autograd function: qkv [tokens, 3 d] -> [tokens, d].
class CausalAttention : public torch::autograd::Function<CausalAttention> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& qkv,
                        const std::vector<int32_t>& offsets, int64_t heads,
                        const Dropout& dropout) {
    const int64_t width = qkv.size(1) / 3;
    const AttentionShape shape{offsets, static_cast<int32_t>(heads), static_cast<int32_t>(width)};
    Tensor out = torch::empty({qkv.size(0), width}, torch::kFloat32);
    Tensor log_sums = torch::empty({heads, qkv.size(0)}, torch::kFloat32);
    CausalAttentionForward(shape, dropout, qkv.data_ptr<float>(), out.data_ptr<float>(),
                           log_sums.data_ptr<float>());
    context->save_for_backward({qkv, out, log_sums});
    context->saved_data["offsets"] = std::vector<int64_t>(offsets.begin(), offsets.end());
    context->saved_data["heads"] = heads;
    context->saved_data["rate"] = static_cast<double>(dropout.rate);
    context->saved_data["key"] = static_cast<int64_t>(dropout.key);
    return out;
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    const tensor_list saved = context->get_saved_variables();
    const Tensor dout = gradients[0].contiguous();
    const std::vector<int32_t> offsets = Offsets(*context);
    const AttentionShape shape{offsets, static_cast<int32_t>(context->saved_data["heads"].toInt()),
                               static_cast<int32_t>(dout.size(1))};
    const Dropout dropout{static_cast<float>(context->saved_data["rate"].toDouble()),
                          static_cast<uint64_t>(context->saved_data["key"].toInt())};
    Tensor dqkv = torch::empty_like(saved[0]);
    CausalAttentionBackward(shape, dropout, saved[0].data_ptr<float>(), saved[1].data_ptr<float>(),
                            saved[2].data_ptr<float>(), dout.data_ptr<float>(),
                            dqkv.data_ptr<float>());
    return {dqkv, Tensor(), Tensor(), Tensor()};
  }
};

// Summed loss of x [tokens, d] through the head [vocab, d]. The gradient is computed on the way, a
// few tokens at a time, so that the logits of a whole batch never exist.
class HeadLoss : public torch::autograd::Function<HeadLoss> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& head,
                        const std::vector<int64_t>& targets, bool gradient) {
    const int64_t tokens = x.size(0);
    Tensor dx;
    Tensor dhead;
    if (gradient) {
      dx = torch::empty_like(x);
      dhead = torch::zeros_like(head);
    }
    std::vector<float> losses(tokens);
    for (int64_t begin = 0; begin < tokens; begin += kHeadTokens) {
      const int64_t count = std::min(kHeadTokens, tokens - begin);
      const Tensor part = x.narrow(0, begin, count);
      const Tensor logits = at::mm(part, head.t());  // [count, vocab]
      CrossEntropy(std::span(targets).subspan(begin, count), head.size(0), logits.data_ptr<float>(),
                   losses.data() + begin);
      if (!gradient) continue;
      dx.narrow(0, begin, count).copy_(at::mm(logits, head));
      dhead.addmm_(logits.t(), part);
    }
    double total = 0;
    for (float loss : losses) total += loss;
    if (gradient) context->save_for_backward({dx, dhead});
    return torch::full({}, total, torch::kFloat32);
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    const tensor_list saved = context->get_saved_variables();
    return {saved[0] * gradients[0], saved[1] * gradients[0], Tensor(), Tensor()};
  }
};

}  // namespace

Gpt2Trainee::Gpt2Trainee(const Gpt2Shape& shape, WeightMap weights)
    : Trainee(LayoutOf(shape), std::move(weights)), shape_(shape) {
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
  const Tensor context = CausalAttention::apply(qkv, batch.offsets, shape_.heads,
                                                DropoutFor(dropout_key, layer, Site::kAttention));
  const Tensor out = Affine(context, block.attention_out.weight, block.attention_out.bias);
  return x + ApplyDropout(out, DropoutFor(dropout_key, layer, Site::kAttentionOut));
}

Tensor Gpt2Trainee::Hidden(const PackedBatch& batch, std::optional<uint64_t> dropout_key,
                           TrainForward& result) const {
  result.active.resize(blocks_.size());
  result.hoyer = torch::zeros({});
  Tensor x = ApplyDropout(Embed(batch), DropoutFor(dropout_key, 0, Site::kEmbedding));
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const Block& block = blocks_[l];
    x = Attend(l, x, batch, dropout_key);
    const SparseActivation hidden =
        ReluWithHoyer(Affine(Normalize(x, block.ffn_norm), block.up.weight, block.up.bias));
    result.active[l] = hidden.active;
    result.hoyer = result.hoyer + hidden.hoyer;
    const Tensor out = Affine(hidden.values, block.down.weight, block.down.bias);
    x = x + ApplyDropout(out, DropoutFor(dropout_key, l, Site::kFfnOut));
  }
  return Normalize(x, final_norm_);
}

TrainForward Gpt2Trainee::Forward(const PackedBatch& batch,
                                  std::optional<uint64_t> dropout_key) const {
  TrainForward result;
  const Tensor hidden = Hidden(batch, dropout_key, result);
  result.loss = HeadLoss::apply(hidden, words_, batch.next_ids, torch::GradMode::is_enabled());
  return result;
}

std::vector<Tensor> Gpt2Trainee::FfnInputs(const PackedBatch& batch) const {
  const at::NoGradGuard frozen;
  std::vector<Tensor> inputs;
  Tensor x = Embed(batch);
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const Block& block = blocks_[l];
    x = Attend(l, x, batch, std::nullopt);
    inputs.push_back(Normalize(x, block.ffn_norm));
    const Tensor hidden = at::relu(Affine(inputs.back(), block.up.weight, block.up.bias));
    x = x + Affine(hidden, block.down.weight, block.down.bias);
  }
  return inputs;
}

std::vector<float> Gpt2Trainee::TokenLosses(const PackedBatch& batch) const {
  const at::NoGradGuard frozen;
  TrainForward unused;
  const Tensor hidden = Hidden(batch, std::nullopt, unused);
  std::vector<float> losses(batch.tokens());
  for (int64_t begin = 0; begin < batch.tokens(); begin += kHeadTokens) {
    const int64_t count = std::min(kHeadTokens, batch.tokens() - begin);
    const Tensor logits = at::mm(hidden.narrow(0, begin, count), words_.t());
    CrossEntropy(std::span(batch.next_ids).subspan(begin, count), shape_.vocab,
                 logits.data_ptr<float>(), losses.data() + begin);
  }
  return losses;
}

Tensor Gpt2Trainee::Logits(const PackedBatch& batch) const {
  const at::NoGradGuard frozen;
  TrainForward unused;
  return at::mm(Hidden(batch, std::nullopt, unused), words_.t());
}

}  // namespace dimmer
