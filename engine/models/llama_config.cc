#include "engine/models/llama_config.h"

#include "engine/models/config_fields.h"
#include "engine/util/status.h"

namespace dimmer {

absl::StatusOr<LlamaConfig> ParseLlamaConfig(const nlohmann::json& json, const std::string& where) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, where));
  if (fields.Has("rope_scaling")) {
    return RefuseSetting(fields, "rope_scaling", fields.json().find("rope_scaling")->dump(),
                         "null");
  }
  LlamaConfig config;
  DIMMER_ASSIGN_OR_RETURN(config.vocab_size, SizeField(fields, "vocab_size", kMaxVocabulary));
  DIMMER_ASSIGN_OR_RETURN(config.width, SizeField(fields, "hidden_size", kMaxWidth));
  DIMMER_ASSIGN_OR_RETURN(config.layers, SizeField(fields, "num_hidden_layers", kMaxLayers));
  DIMMER_ASSIGN_OR_RETURN(config.heads, SizeField(fields, "num_attention_heads", kMaxWidth));
  DIMMER_ASSIGN_OR_RETURN(config.kv_heads,
                          SizeField(fields, "num_key_value_heads", kMaxWidth, config.heads));
  DIMMER_ASSIGN_OR_RETURN(config.hidden, SizeField(fields, "intermediate_size", 8 * kMaxWidth));
  DIMMER_ASSIGN_OR_RETURN(config.max_positions,
                          SizeField(fields, "max_position_embeddings", kMaxPositions, 2048));
  DIMMER_ASSIGN_OR_RETURN(const double epsilon, fields.Number("rms_norm_eps", 0, 1, 1e-6));
  config.rms_norm_epsilon = static_cast<float>(epsilon);
  DIMMER_ASSIGN_OR_RETURN(config.rope_theta, fields.Number("rope_theta", 1, 1e9, 10000));
  DIMMER_ASSIGN_OR_RETURN(config.activation, ActivationField(fields, "hidden_act", "silu"));
  DIMMER_ASSIGN_OR_RETURN(config.tied_head, fields.Bool("tie_word_embeddings", false));
  DIMMER_ASSIGN_OR_RETURN(config.end_ids, EndIdsField(fields, config.vocab_size, 2));
  if (config.heads % config.kv_heads != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: num_key_value_heads: found {}, expected a divisor of num_attention_heads "
                    "{}",
                    where, config.kv_heads, config.heads));
  }
  if (!fields.Has("head_dim") && config.width % config.heads != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: num_attention_heads: found {}, expected a divisor of hidden_size {}",
                    where, config.heads, config.width));
  }
  DIMMER_ASSIGN_OR_RETURN(config.head_dim,
                          SizeField(fields, "head_dim", kMaxWidth, config.width / config.heads));
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: head_dim: found {}, expected an even number", where, config.head_dim));
  }
  return config;
}

}  // namespace dimmer
