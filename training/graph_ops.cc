#include "training/graph_ops.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <span>
#include <stdexcept>

#include "training/causal_attention.h"
#include "training/cross_entropy.h"

namespace dimmer {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

constexpr double kHoyerEpsilon = 1e-15;

// {relu(pre), sum of h over tokens}.
class ReluHoyer : public torch::autograd::Function<ReluHoyer> {
 public:
  static tensor_list forward(AutogradContext* context, const Tensor& pre, int64_t* active) {
    const int64_t tokens = pre.size(0);
    Tensor act = torch::empty_like(pre);
    Tensor sums = torch::empty({tokens, 2}, pre.options());
    auto* per_token = reinterpret_cast<HoyerSums*>(sums.data_ptr<float>());
    *active = ReluHoyerForward(pre.data_ptr<float>(), tokens, pre.size(1), act.data_ptr<float>(),
                               per_token);
    double total = 0;
    for (int64_t t = 0; t < tokens; ++t) total += per_token[t].Value();
    context->save_for_backward({act, sums});
    return {act, torch::full({}, total, pre.options())};
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    const tensor_list saved = context->get_saved_variables();
    const Tensor& act = saved[0];
    const Tensor dact = gradients[0].contiguous();
    Tensor dpre = torch::empty_like(act);
    ReluHoyerBackward(act.data_ptr<float>(),
                      reinterpret_cast<const HoyerSums*>(saved[1].data_ptr<float>()),
                      dact.data_ptr<float>(), gradients[1].item<float>(), act.size(0), act.size(1),
                      dpre.data_ptr<float>());
    return {dpre, Tensor()};
  }
};
static_assert(sizeof(HoyerSums) == 2 * sizeof(float));

// The usual case, in one pass.
SparseActivation ReluWithHoyer(const Tensor& pre) {
  SparseActivation result;
  const tensor_list outputs = ReluHoyer::apply(pre, &result.active);
  result.values = outputs[0];
  result.penalty = outputs[1];
  return result;
}

// `penalised` is not negative.
SparseActivation Penalised(const Tensor& values, const Tensor& penalised,
                           const Sparsity& sparsity) {
  SparseActivation result{.values = values};
  const float quiet = sparsity.activation == Activation::kRelu ? 0 : kQuiet;
  result.active = at::gt(values.detach().abs(), quiet).sum().item<int64_t>();
  if (sparsity.penalty == Penalty::kL1) {
    result.penalty = penalised.sum();
  } else {
    result.penalty =
        (penalised.sum(1).square() / (penalised.square().sum(1) + kHoyerEpsilon)).sum();
  }
  return result;
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

Tensor IndexTensor(const std::vector<int64_t>& values) {
  return torch::tensor(at::ArrayRef<int64_t>(values), torch::kInt64);
}

Tensor ApplyDropout(const Tensor& x, const Dropout& dropout) {
  if (dropout.rate == 0) return x;
  Tensor mask = torch::empty(x.sizes(), torch::kFloat32);
  DropoutMask(dropout, {mask.data_ptr<float>(), static_cast<size_t>(mask.numel())});
  return x * mask;
}

Tensor Activated(const Tensor& pre, Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return at::relu(pre);
    case Activation::kGelu:
      return at::gelu(pre);
    case Activation::kGeluTanh:
      return at::gelu(pre, "tanh");
    case Activation::kSilu:
      return at::silu(pre);
    default:
      throw std::invalid_argument("an activation that is not trained");
  }
}

SparseActivation Activate(const Tensor& pre, const Sparsity& sparsity) {
  const bool relu = sparsity.activation == Activation::kRelu;
  if (relu && sparsity.penalty == Penalty::kSquareHoyer) return ReluWithHoyer(pre);
  const Tensor values = Activated(pre, sparsity.activation);
  const Tensor penalised =
      relu ? values : at::clamp_min(pre, kDisplacement) - static_cast<double>(kDisplacement);
  return Penalised(values, penalised, sparsity);
}

SparseActivation ActivateGate(const Tensor& pre, const Sparsity& sparsity) {
  const bool relu = sparsity.activation == Activation::kRelu;
  if (relu && sparsity.penalty == Penalty::kSquareHoyer) return ReluWithHoyer(pre);
  const Tensor values = Activated(pre, sparsity.activation);
  return Penalised(values, relu ? values : at::relu(pre), sparsity);
}

Tensor CausalAttend(const Tensor& qkv, const std::vector<int32_t>& offsets, int64_t heads,
                    const Dropout& dropout) {
  return CausalAttention::apply(qkv, offsets, heads, dropout);
}

Tensor NextTokenLoss(const Tensor& x, const Tensor& head, const std::vector<int64_t>& targets) {
  return HeadLoss::apply(x, head, targets, torch::GradMode::is_enabled());
}

}  // namespace dimmer
