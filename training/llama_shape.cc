#include "training/llama_shape.h"

#include <fmt/format.h>

#include "engine/models/llama_config.h"
#include "engine/util/status.h"

namespace dimmer {

ModelLayout LayoutOf(const LlamaShape& shape) {
  const int64_t d = shape.width;
  const int64_t queries = shape.heads * shape.head_dim;
  const int64_t keys = shape.kv_heads * shape.head_dim;
  ModelLayout layout{.width = d,
                     .hidden = shape.hidden,
                     .vocab = shape.vocab,
                     .positions = shape.positions,
                     .activation_key = "hidden_act",
                     .tensors = {},
                     .ffns = {}};
  std::vector<NamedShape>& list = layout.tensors;
  list.push_back({"model.embed_tokens.weight", {shape.vocab, d}});
  for (int64_t l = 0; l < shape.layers; ++l) {
    const std::string block = fmt::format("model.layers.{}.", l);
    list.push_back({block + "input_layernorm.weight", {d}});
    list.push_back({block + "self_attn.q_proj.weight", {queries, d}});
    list.push_back({block + "self_attn.k_proj.weight", {keys, d}});
    list.push_back({block + "self_attn.v_proj.weight", {keys, d}});
    list.push_back({block + "self_attn.o_proj.weight", {d, queries}});
    list.push_back({block + "post_attention_layernorm.weight", {d}});
    list.push_back({block + "mlp.gate_proj.weight", {shape.hidden, d}});
    list.push_back({block + "mlp.up_proj.weight", {shape.hidden, d}});
    list.push_back({block + "mlp.down_proj.weight", {d, shape.hidden}});
    layout.ffns.push_back({.gate = block + "mlp.gate_proj.weight",
                           .up = block + "mlp.up_proj.weight",
                           .up_bias = "",
                           .down = block + "mlp.down_proj.weight",
                           .orientation = Orientation::kOutIn});
  }
  list.push_back({"model.norm.weight", {d}});
  if (!shape.tied_head) list.push_back({"lm_head.weight", {shape.vocab, d}});
  return layout;
}

absl::StatusOr<LlamaShape> LlamaShapeOf(const nlohmann::json& config, const std::string& where) {
  DIMMER_ASSIGN_OR_RETURN(const LlamaConfig read, ParseLlamaConfig(config, where));
  return LlamaShape{.width = read.width,
                    .layers = read.layers,
                    .heads = read.heads,
                    .kv_heads = read.kv_heads,
                    .head_dim = read.head_dim,
                    .hidden = read.hidden,
                    .vocab = read.vocab_size,
                    .positions = read.max_positions,
                    .norm_epsilon = read.rms_norm_epsilon,
                    .rope_theta = read.rope_theta,
                    .tied_head = read.tied_head};
}

}  // namespace dimmer
