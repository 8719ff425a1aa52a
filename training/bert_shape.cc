#include "training/bert_shape.h"

#include <fmt/format.h>

namespace dimmer {
namespace {

void AddLinear(const std::string& prefix, int64_t out, int64_t in, std::vector<NamedShape>& list) {
  list.push_back({prefix + ".weight", {out, in}});
  list.push_back({prefix + ".bias", {out}});
}

void AddNorm(const std::string& prefix, int64_t width, std::vector<NamedShape>& list) {
  list.push_back({prefix + ".weight", {width}});
  list.push_back({prefix + ".bias", {width}});
}

}  // namespace

std::vector<NamedShape> BertTensors(const BertShape& shape) {
  const int64_t d = shape.width;
  std::vector<NamedShape> list;
  list.push_back({"bert.embeddings.word_embeddings.weight", {shape.vocab, d}});
  list.push_back({"bert.embeddings.position_embeddings.weight", {shape.positions, d}});
  list.push_back({"bert.embeddings.token_type_embeddings.weight", {shape.types, d}});
  AddNorm("bert.embeddings.LayerNorm", d, list);
  for (int64_t l = 0; l < shape.layers; ++l) {
    const std::string layer = fmt::format("bert.encoder.layer.{}.", l);
    AddLinear(layer + "attention.self.query", d, d, list);
    AddLinear(layer + "attention.self.key", d, d, list);
    AddLinear(layer + "attention.self.value", d, d, list);
    AddLinear(layer + "attention.output.dense", d, d, list);
    AddNorm(layer + "attention.output.LayerNorm", d, list);
    AddLinear(layer + "intermediate.dense", shape.hidden, d, list);
    AddLinear(layer + "output.dense", d, shape.hidden, list);
    AddNorm(layer + "output.LayerNorm", d, list);
  }
  AddLinear("bert.pooler.dense", d, d, list);
  AddLinear("classifier", shape.classes, d, list);
  return list;
}

ModelLayout LayoutOf(const BertShape& shape) {
  ModelLayout layout{.width = shape.width,
                     .hidden = shape.hidden,
                     .vocab = shape.vocab,
                     .positions = shape.positions,
                     .tensors = BertTensors(shape),
                     .ffns = {}};
  for (int64_t l = 0; l < shape.layers; ++l) {
    const std::string layer = fmt::format("bert.encoder.layer.{}.", l);
    layout.ffns.push_back({.up = layer + "intermediate.dense.weight",
                           .up_bias = layer + "intermediate.dense.bias",
                           .down = layer + "output.dense.weight",
                           .orientation = Orientation::kOutIn});
  }
  return layout;
}

}  // namespace dimmer
