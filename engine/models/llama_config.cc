#include "engine/models/llama_config.h"

#include "engine/models/config_fields.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

// The base of the rotary frequencies. It stands beside the other keys, and since version 5 of
// `transformers` in rope_parameters, with what used to be in rope_scaling.
absl::StatusOr<double> RopeTheta(const JsonFields& fields) {
  constexpr double kLargest = 1e9;
  DIMMER_ASSIGN_OR_RETURN(double theta, fields.Number("rope_theta", 1, kLargest, 10000));
  std::vector<JsonFields> places = {fields};
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!fields.Has(key)) continue;
    DIMMER_ASSIGN_OR_RETURN(const JsonFields rope, fields.Object(key));
    const char* kind = rope.Has("rope_type") ? "rope_type" : "type";
    DIMMER_ASSIGN_OR_RETURN(const std::string type, rope.String(kind, "default"));
    if (type != "default") return RefuseSetting(rope, kind, '"' + type + '"', "\"default\"");
    DIMMER_ASSIGN_OR_RETURN(theta, rope.Number("rope_theta", 1, kLargest, theta));
    places.push_back(rope);
  }
  for (const JsonFields& place : places) {
    constexpr std::string_view kFactor = "partial_rotary_factor";
    DIMMER_ASSIGN_OR_RETURN(const double factor, place.Number(kFactor, 0, 1, 1));
    if (factor != 1) return RefuseSetting(place, kFactor, fmt::format("{}", factor), "1");
  }
  return theta;
}

}  // namespace

absl::StatusOr<LlamaConfig> ParseLlamaConfig(const nlohmann::json& json, const std::string& where) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, where));
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
  DIMMER_ASSIGN_OR_RETURN(config.rope_theta, RopeTheta(fields));
  DIMMER_ASSIGN_OR_RETURN(config.attention_bias, fields.Bool("attention_bias", false));
  DIMMER_RETURN_IF_ERROR(ExpectFlag(fields, "mlp_bias", false));
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
