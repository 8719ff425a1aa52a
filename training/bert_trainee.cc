#include "training/bert_trainee.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <stdexcept>
#include <utility>

#include "training/kernels.h"
#include "training/random.h"

namespace dimmer {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// Where in the network a dropout mask is drawn; part of its key.
enum Site : uint64_t { kEmbedding = 1, kAttention, kAttentionOut, kFfnOut, kPooled };

Dropout DropoutFor(const BertShape& shape, std::optional<uint64_t> key, uint64_t layer, Site site) {
  const double rate = site == kAttention ? shape.attention_dropout
                      : site == kPooled  ? shape.classifier_dropout
                                         : shape.dropout;
  if (!key.has_value() || rate == 0) return {};
  return {static_cast<float>(rate), RandomKey({*key, layer, site})};
}

Tensor ApplyDropout(const Tensor& x, const Dropout& dropout) {
  if (dropout.rate == 0) return x;
  Tensor mask = torch::empty(x.sizes(), torch::kFloat32);
  DropoutMask(dropout, {mask.data_ptr<float>(), static_cast<size_t>(mask.numel())});
  return x * mask;
}

// kernels.h's attention as an autograd function.
class PackedAttention : public torch::autograd::Function<PackedAttention> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::vector<int32_t>& offsets, int64_t heads,
                        const Dropout& dropout) {
    const AttentionShape shape{offsets, static_cast<int32_t>(heads),
                               static_cast<int32_t>(q.size(1))};
    Tensor out = torch::empty_like(q);
    Tensor probabilities = torch::empty({shape.ProbabilityCount()}, q.options());
    AttentionForward(shape, dropout, q.data_ptr<float>(), k.data_ptr<float>(), v.data_ptr<float>(),
                     out.data_ptr<float>(), probabilities.data_ptr<float>());
    context->save_for_backward({q, k, v, probabilities});
    context->saved_data["offsets"] = std::vector<int64_t>(offsets.begin(), offsets.end());
    context->saved_data["heads"] = heads;
    context->saved_data["rate"] = static_cast<double>(dropout.rate);
    context->saved_data["key"] = static_cast<int64_t>(dropout.key);
    return out;
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    const tensor_list saved = context->get_saved_variables();
    const Tensor dout = gradients[0].contiguous();
    const std::vector<int64_t> wide = context->saved_data["offsets"].toIntVector();
    const std::vector<int32_t> offsets(wide.begin(), wide.end());
    const AttentionShape shape{offsets, static_cast<int32_t>(context->saved_data["heads"].toInt()),
                               static_cast<int32_t>(dout.size(1))};
    const Dropout dropout{static_cast<float>(context->saved_data["rate"].toDouble()),
                          static_cast<uint64_t>(context->saved_data["key"].toInt())};
    Tensor dq = torch::empty_like(dout);
    Tensor dk = torch::empty_like(dout);
    Tensor dv = torch::empty_like(dout);
    AttentionBackward(shape, dropout, saved[0].data_ptr<float>(), saved[1].data_ptr<float>(),
                      saved[2].data_ptr<float>(), saved[3].data_ptr<float>(),
                      dout.data_ptr<float>(), dq.data_ptr<float>(), dk.data_ptr<float>(),
                      dv.data_ptr<float>());
    return {dq, dk, dv, Tensor(), Tensor(), Tensor()};
  }
};

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

Tensor IndexTensor(const std::vector<int64_t>& values) {
  return torch::tensor(at::ArrayRef<int64_t>(values), torch::kInt64);
}

}  // namespace

BertTrainee::BertTrainee(const BertShape& shape, std::map<std::string, std::vector<float>> weights)
    : shape_(shape) {
  for (const NamedShape& tensor : BertTensors(shape)) {
    const auto found = weights.find(tensor.name);
    if (found == weights.end()) throw std::invalid_argument("no weights for " + tensor.name);
    Parameter parameter{.name = tensor.name,
                        .value = torch::tensor(at::ArrayRef<float>(found->second), torch::kFloat32)
                                     .reshape(tensor.shape)};
    parameter.trained = tensor.name.rfind("bert.embeddings.", 0) != 0;
    parameter.decayed = tensor.shape.size() > 1;
    parameter.value.set_requires_grad(parameter.trained);
    index_[tensor.name] = parameters_.size();
    parameters_.push_back(std::move(parameter));
    weights.erase(found);
  }
  words_ = At("bert.embeddings.word_embeddings.weight");
  positions_ = At("bert.embeddings.position_embeddings.weight");
  types_ = At("bert.embeddings.token_type_embeddings.weight");
  embedding_norm_ = NormAt("bert.embeddings.LayerNorm");
  for (int64_t l = 0; l < shape.layers; ++l) {
    const std::string layer = fmt::format("bert.encoder.layer.{}.", l);
    blocks_.push_back({.query = LinearAt(layer + "attention.self.query"),
                       .key = LinearAt(layer + "attention.self.key"),
                       .value = LinearAt(layer + "attention.self.value"),
                       .attention_out = LinearAt(layer + "attention.output.dense"),
                       .up = LinearAt(layer + "intermediate.dense"),
                       .down = LinearAt(layer + "output.dense"),
                       .attention_norm = NormAt(layer + "attention.output.LayerNorm"),
                       .ffn_norm = NormAt(layer + "output.LayerNorm")});
  }
  pooler_ = LinearAt("bert.pooler.dense");
  classifier_ = LinearAt("classifier");
}

const Tensor& BertTrainee::At(const std::string& name) const {
  return parameters_[index_.at(name)].value;
}

BertTrainee::Linear BertTrainee::LinearAt(const std::string& prefix) const {
  return {At(prefix + ".weight"), At(prefix + ".bias")};
}

BertTrainee::Norm BertTrainee::NormAt(const std::string& prefix) const {
  return {At(prefix + ".weight"), At(prefix + ".bias")};
}

Tensor BertTrainee::Normalize(const Tensor& x, const Norm& norm) const {
  return at::layer_norm(x, {shape_.width}, norm.weight, norm.bias, shape_.norm_epsilon);
}

Tensor BertTrainee::Embed(const PackedBatch& batch) const {
  const at::NoGradGuard frozen;
  const Tensor sum = words_.index_select(0, IndexTensor(batch.ids)) +
                     positions_.index_select(0, IndexTensor(batch.positions)) +
                     types_.index_select(0, IndexTensor(batch.type_ids));
  return Normalize(sum, embedding_norm_);  // [tokens, d]
}

Tensor BertTrainee::Attend(const Block& block, const Tensor& x, const PackedBatch& batch,
                           const AttentionKeys& keys) const {
  const Tensor q = at::linear(x, block.query.weight, block.query.bias);
  const Tensor k = at::linear(x, block.key.weight, block.key.bias);
  const Tensor v = at::linear(x, block.value.weight, block.value.bias);
  const Tensor context =
      PackedAttention::apply(q, k, v, batch.offsets, shape_.heads, keys.probabilities);
  const Tensor out = at::linear(context, block.attention_out.weight, block.attention_out.bias);
  return Normalize(x + ApplyDropout(out, keys.out), block.attention_norm);
}

TrainForward BertTrainee::Forward(const PackedBatch& batch,
                                  std::optional<uint64_t> dropout_key) const {
  TrainForward result;
  result.active.resize(blocks_.size());
  result.hoyer = torch::zeros({});
  Tensor x = ApplyDropout(Embed(batch), DropoutFor(shape_, dropout_key, 0, kEmbedding));
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const Block& block = blocks_[l];
    x = Attend(block, x, batch,
               {.probabilities = DropoutFor(shape_, dropout_key, l, kAttention),
                .out = DropoutFor(shape_, dropout_key, l, kAttentionOut)});
    const tensor_list hidden =
        ReluHoyer::apply(at::linear(x, block.up.weight, block.up.bias), &result.active[l]);
    result.hoyer = result.hoyer + hidden[1];
    const Tensor out = at::linear(hidden[0], block.down.weight, block.down.bias);
    x = Normalize(x + ApplyDropout(out, DropoutFor(shape_, dropout_key, l, kFfnOut)),
                  block.ffn_norm);
  }
  const std::vector<int64_t> first(batch.offsets.begin(), batch.offsets.end() - 1);  // [CLS]
  const Tensor cls = x.index_select(0, IndexTensor(first));
  const Tensor pooled = at::tanh(at::linear(cls, pooler_.weight, pooler_.bias));
  result.logits =
      at::linear(ApplyDropout(pooled, DropoutFor(shape_, dropout_key, blocks_.size(), kPooled)),
                 classifier_.weight, classifier_.bias);
  return result;
}

std::vector<Tensor> BertTrainee::FfnInputs(const PackedBatch& batch) const {
  const at::NoGradGuard frozen;
  std::vector<Tensor> inputs;
  Tensor x = Embed(batch);
  for (const Block& block : blocks_) {
    x = Attend(block, x, batch, {});
    inputs.push_back(x);
    const Tensor hidden = at::relu(at::linear(x, block.up.weight, block.up.bias));
    x = Normalize(x + at::linear(hidden, block.down.weight, block.down.bias), block.ffn_norm);
  }
  return inputs;
}

}  // namespace dimmer
