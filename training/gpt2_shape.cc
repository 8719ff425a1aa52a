#include "training/gpt2_shape.h"

#include <algorithm>
#include <cmath>

#include "engine/package/json_fields.h"
#include "engine/util/status.h"
#include "training/random.h"

namespace dimmer {
namespace {

// Far above any published GPT-2.
constexpr int64_t kMaxWidth = 1 << 15;
constexpr int64_t kMaxLayers = 512;
constexpr int64_t kMaxVocabulary = 1 << 23;
constexpr int64_t kMaxPositions = 1 << 17;
constexpr double kInitialDeviation = 0.02;

void AddLinear(const std::string& prefix, int64_t in, int64_t out, std::vector<NamedShape>& list) {
  list.push_back({prefix + ".weight", {in, out}});
  list.push_back({prefix + ".bias", {out}});
}

void AddNorm(const std::string& prefix, int64_t width, std::vector<NamedShape>& list) {
  list.push_back({prefix + ".weight", {width}});
  list.push_back({prefix + ".bias", {width}});
}

absl::Status CheckSupported(const JsonFields& fields) {
  DIMMER_ASSIGN_OR_RETURN(const std::string type, fields.String("model_type", "gpt2"));
  if (type != "gpt2") {
    return absl::UnimplementedError(
        fmt::format("{}: model_type: found \"{}\", expected \"gpt2\"", fields.where(), type));
  }
  for (const auto& [key, wanted] :
       {std::pair("tie_word_embeddings", true), std::pair("scale_attn_weights", true),
        std::pair("scale_attn_by_inverse_layer_idx", false),
        std::pair("add_cross_attention", false)}) {
    DIMMER_ASSIGN_OR_RETURN(const bool found, fields.Bool(key, wanted));
    if (found != wanted) {
      return absl::UnimplementedError(
          fmt::format("{}: {}: found {}, expected {}", fields.where(), key, found, wanted));
    }
  }
  return absl::OkStatus();
}

}  // namespace

ModelLayout LayoutOf(const Gpt2Shape& shape) {
  const int64_t d = shape.width;
  ModelLayout layout{.width = d,
                     .hidden = shape.hidden,
                     .vocab = shape.vocab,
                     .positions = shape.positions,
                     .activation_key = "activation_function",
                     .tensors = {},
                     .ffns = {}};
  std::vector<NamedShape>& list = layout.tensors;
  list.push_back({"transformer.wte.weight", {shape.vocab, d}});
  list.push_back({"transformer.wpe.weight", {shape.positions, d}});
  for (int64_t l = 0; l < shape.layers; ++l) {
    const std::string block = fmt::format("transformer.h.{}.", l);
    AddNorm(block + "ln_1", d, list);
    AddLinear(block + "attn.c_attn", d, 3 * d, list);
    AddLinear(block + "attn.c_proj", d, d, list);
    AddNorm(block + "ln_2", d, list);
    AddLinear(block + "mlp.c_fc", d, shape.hidden, list);
    AddLinear(block + "mlp.c_proj", shape.hidden, d, list);
    layout.ffns.push_back({.up = block + "mlp.c_fc.weight",
                           .up_bias = block + "mlp.c_fc.bias",
                           .down = block + "mlp.c_proj.weight",
                           .orientation = Orientation::kInOut});
  }
  AddNorm("transformer.ln_f", d, list);
  return layout;
}

absl::StatusOr<Gpt2Shape> Gpt2ShapeOf(const nlohmann::json& config, const std::string& where) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(config, where));
  DIMMER_RETURN_IF_ERROR(CheckSupported(fields));
  Gpt2Shape shape;
  DIMMER_ASSIGN_OR_RETURN(shape.width, fields.Int("n_embd", 1, kMaxWidth));
  DIMMER_ASSIGN_OR_RETURN(shape.layers, fields.Int("n_layer", 1, kMaxLayers));
  DIMMER_ASSIGN_OR_RETURN(shape.heads, fields.Int("n_head", 1, shape.width));
  DIMMER_ASSIGN_OR_RETURN(shape.hidden, fields.Int("n_inner", 1, 16 * kMaxWidth, 4 * shape.width));
  DIMMER_ASSIGN_OR_RETURN(shape.vocab, fields.Int("vocab_size", 1, kMaxVocabulary));
  DIMMER_ASSIGN_OR_RETURN(shape.positions, fields.Int("n_positions", 2, kMaxPositions));
  DIMMER_ASSIGN_OR_RETURN(shape.norm_epsilon, fields.Number("layer_norm_epsilon", 1e-12, 1, 1e-5));
  DIMMER_ASSIGN_OR_RETURN(shape.embedding_dropout, fields.Number("embd_pdrop", 0, 0.9, 0.1));
  DIMMER_ASSIGN_OR_RETURN(shape.attention_dropout, fields.Number("attn_pdrop", 0, 0.9, 0.1));
  DIMMER_ASSIGN_OR_RETURN(shape.residual_dropout, fields.Number("resid_pdrop", 0, 0.9, 0.1));
  if (shape.width % shape.heads != 0) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: n_head: found {}, expected a divisor of n_embd {}", where, shape.heads, shape.width));
  }
  return shape;
}

nlohmann::json Gpt2ConfigJson(const Gpt2Shape& shape) {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"activation_function", "relu"},
          {"n_embd", shape.width},
          {"n_layer", shape.layers},
          {"n_head", shape.heads},
          {"n_inner", shape.hidden},
          {"vocab_size", shape.vocab},
          {"n_positions", shape.positions},
          {"n_ctx", shape.positions},
          {"layer_norm_epsilon", shape.norm_epsilon},
          {"embd_pdrop", shape.embedding_dropout},
          {"attn_pdrop", shape.attention_dropout},
          {"resid_pdrop", shape.residual_dropout},
          {"initializer_range", kInitialDeviation},
          {"tie_word_embeddings", true}};
}

WeightMap DrawGpt2(const Gpt2Shape& shape, uint64_t seed) {
  WeightMap weights;
  uint64_t number = 0;
  for (const NamedShape& tensor : LayoutOf(shape).tensors) {
    ++number;
    size_t count = 1;
    for (int64_t size : tensor.shape) count *= static_cast<size_t>(size);
    std::vector<float>& values = weights[tensor.name];
    if (tensor.shape.size() == 1) {
      const bool norm = tensor.name.find("ln_") != std::string::npos;
      values.assign(count, norm && tensor.name.ends_with(".weight") ? 1.0F : 0.0F);
      continue;
    }
    const bool block_out = tensor.name.ends_with("c_proj.weight");
    const double deviation =
        kInitialDeviation / (block_out ? std::sqrt(2.0 * static_cast<double>(shape.layers)) : 1.0);
    values.resize(count);
    RandomStream random(RandomKey({seed, 0x1417, number}));
    for (float& value : values) value = static_cast<float>(random.Normal() * deviation);
  }
  return weights;
}

}  // namespace dimmer
