#include "engine/models/gpt2_config.h"

#include "engine/models/config_fields.h"
#include "engine/util/status.h"

namespace dimmer {

absl::StatusOr<Gpt2Config> ParseGpt2Config(const nlohmann::json& json, const std::string& where) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, where));
  DIMMER_RETURN_IF_ERROR(ExpectFlag(fields, "add_cross_attention", false));
  DIMMER_RETURN_IF_ERROR(ExpectFlag(fields, "scale_attn_weights", true));
  DIMMER_RETURN_IF_ERROR(ExpectFlag(fields, "scale_attn_by_inverse_layer_idx", false));
  Gpt2Config config;
  DIMMER_ASSIGN_OR_RETURN(config.vocab_size, SizeField(fields, "vocab_size", kMaxVocabulary));
  DIMMER_ASSIGN_OR_RETURN(config.width, SizeField(fields, "n_embd", kMaxWidth));
  DIMMER_ASSIGN_OR_RETURN(config.layers, SizeField(fields, "n_layer", kMaxLayers));
  DIMMER_ASSIGN_OR_RETURN(config.heads, SizeField(fields, "n_head", kMaxWidth));
  DIMMER_ASSIGN_OR_RETURN(config.hidden,
                          SizeField(fields, "n_inner", 8 * kMaxWidth, 4 * int64_t{config.width}));
  DIMMER_ASSIGN_OR_RETURN(config.max_positions,
                          SizeField(fields, "n_positions", kMaxPositions, 1024));
  DIMMER_ASSIGN_OR_RETURN(config.activation,
                          ActivationField(fields, "activation_function", "gelu_new"));
  DIMMER_ASSIGN_OR_RETURN(const double epsilon, fields.Number("layer_norm_epsilon", 0, 1, 1e-5));
  config.layer_norm_epsilon = static_cast<float>(epsilon);
  DIMMER_ASSIGN_OR_RETURN(config.tied_head, fields.Bool("tie_word_embeddings", true));
  DIMMER_ASSIGN_OR_RETURN(config.end_ids, EndIdsField(fields, config.vocab_size, 50256));
  if (config.width % config.heads != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: n_head: found {}, expected a divisor of n_embd {}", where, config.heads,
                    config.width));
  }
  return config;
}

}  // namespace dimmer
