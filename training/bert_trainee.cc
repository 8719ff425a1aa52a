#include "training/bert_trainee.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "training/graph_ops.h"
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

}  // namespace

BertTrainee::BertTrainee(const BertShape& shape, WeightMap weights, const Sparsity& sparsity)
    : Trainee(LayoutOf(shape), std::move(weights), sparsity), shape_(shape) {
  Freeze("bert.embeddings.");
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
  result.penalty = torch::zeros({});
  Tensor x = ApplyDropout(Embed(batch), DropoutFor(shape_, dropout_key, 0, kEmbedding));
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const Block& block = blocks_[l];
    x = Attend(block, x, batch,
               {.probabilities = DropoutFor(shape_, dropout_key, l, kAttention),
                .out = DropoutFor(shape_, dropout_key, l, kAttentionOut)});
    const SparseActivation hidden =
        Activate(at::linear(x, block.up.weight, block.up.bias), sparsity());
    result.active[l] = hidden.active;
    result.penalty = result.penalty + hidden.penalty;
    const Tensor out = at::linear(hidden.values, block.down.weight, block.down.bias);
    x = Normalize(x + ApplyDropout(out, DropoutFor(shape_, dropout_key, l, kFfnOut)),
                  block.ffn_norm);
  }
  const std::vector<int64_t> first(batch.offsets.begin(), batch.offsets.end() - 1);  // [CLS]
  const Tensor cls = x.index_select(0, IndexTensor(first));
  const Tensor pooled = at::tanh(at::linear(cls, pooler_.weight, pooler_.bias));
  result.logits =
      at::linear(ApplyDropout(pooled, DropoutFor(shape_, dropout_key, blocks_.size(), kPooled)),
                 classifier_.weight, classifier_.bias);
  result.loss =
      at::cross_entropy_loss(result.logits, IndexTensor(batch.labels), {}, at::Reduction::Sum);
  return result;
}

std::vector<Tensor> BertTrainee::FfnInputs(const PackedBatch& batch,
                                           const HiddenFilter& filter) const {
  const at::NoGradGuard frozen;
  std::vector<Tensor> inputs;
  Tensor x = Embed(batch);
  for (const Block& block : blocks_) {
    x = Attend(block, x, batch, {});
    inputs.push_back(x);
    const Tensor hidden =
        Filtered(filter, inputs,
                 Activated(at::linear(x, block.up.weight, block.up.bias), sparsity().activation));
    x = Normalize(x + at::linear(hidden, block.down.weight, block.down.bias), block.ffn_norm);
  }
  return inputs;
}

}  // namespace dimmer
