#include "engine/models/bert_config.h"

#include "engine/models/config_fields.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr int64_t kMaxLabels = 1 << 16;

// Settings that would change the result and that this engine does not compute.
absl::Status CheckSupported(const JsonFields& fields) {
  DIMMER_ASSIGN_OR_RETURN(const std::string type, fields.String("model_type", "bert"));
  if (type != "bert") return RefuseSetting(fields, "model_type", '"' + type + '"', "\"bert\"");
  DIMMER_ASSIGN_OR_RETURN(const std::string positions,
                          fields.String("position_embedding_type", "absolute"));
  if (positions != "absolute") {
    return RefuseSetting(fields, "position_embedding_type", '"' + positions + '"', "\"absolute\"");
  }
  for (const char* key : {"is_decoder", "add_cross_attention", "is_encoder_decoder"}) {
    DIMMER_RETURN_IF_ERROR(ExpectFlag(fields, key, false));
  }
  const auto pruned = fields.json().find("pruned_heads");
  if (pruned != fields.json().end() && !pruned->empty()) {
    return RefuseSetting(fields, "pruned_heads", "pruned heads", "none");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ParseLabels(const JsonFields& fields) {
  if (!fields.Has("id2label")) {
    DIMMER_ASSIGN_OR_RETURN(const int64_t count, fields.Int("num_labels", 1, kMaxLabels, 2));
    std::vector<std::string> labels;
    for (int64_t i = 0; i < count; ++i) labels.push_back(fmt::format("LABEL_{}", i));
    return labels;
  }
  DIMMER_ASSIGN_OR_RETURN(const JsonFields names, fields.Object("id2label"));
  const size_t count = names.json().size();
  if (count == 0 || count > kMaxLabels) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {} labels, expected 1 to {}", names.where(), count, kMaxLabels));
  }
  std::vector<std::string> labels;
  for (size_t i = 0; i < count; ++i) {
    DIMMER_ASSIGN_OR_RETURN(std::string label, names.String(fmt::format("{}", i)));
    labels.push_back(std::move(label));
  }
  if (fields.Has("num_labels")) {
    DIMMER_ASSIGN_OR_RETURN(const int64_t stated, fields.Int("num_labels", 1, kMaxLabels));
    if (static_cast<size_t>(stated) != count) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: num_labels: found {}, expected {} as in id2label", fields.where(), stated, count));
    }
  }
  return labels;
}

absl::Status ParseHead(const JsonFields& fields, BertConfig& config) {
  DIMMER_ASSIGN_OR_RETURN(config.labels, ParseLabels(fields));
  DIMMER_ASSIGN_OR_RETURN(const std::string problem, fields.String("problem_type", ""));
  if (problem == "multi_label_classification" || config.labels.size() == 1) {
    config.multi_label = true;
  }
  if (!problem.empty() && problem != "single_label_classification" &&
      problem != "multi_label_classification") {
    return RefuseSetting(fields, "problem_type", '"' + problem + '"',
                         "single_label_classification or multi_label_classification");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BertConfig> ParseBertConfig(const nlohmann::json& json, bool classifier,
                                           const std::string& where) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, where));
  DIMMER_RETURN_IF_ERROR(CheckSupported(fields));
  BertConfig config;
  DIMMER_ASSIGN_OR_RETURN(config.vocab_size, SizeField(fields, "vocab_size", kMaxVocabulary));
  DIMMER_ASSIGN_OR_RETURN(config.hidden_size, SizeField(fields, "hidden_size", kMaxWidth));
  DIMMER_ASSIGN_OR_RETURN(config.layers, SizeField(fields, "num_hidden_layers", kMaxLayers));
  DIMMER_ASSIGN_OR_RETURN(config.heads, SizeField(fields, "num_attention_heads", kMaxWidth));
  DIMMER_ASSIGN_OR_RETURN(config.intermediate_size,
                          SizeField(fields, "intermediate_size", 8 * kMaxWidth));
  DIMMER_ASSIGN_OR_RETURN(config.max_positions,
                          SizeField(fields, "max_position_embeddings", kMaxPositions, 512));
  DIMMER_ASSIGN_OR_RETURN(config.type_vocab_size, SizeField(fields, "type_vocab_size", 1024, 2));
  DIMMER_ASSIGN_OR_RETURN(const double epsilon, fields.Number("layer_norm_eps", 0, 1, 1e-12));
  config.layer_norm_epsilon = static_cast<float>(epsilon);
  DIMMER_ASSIGN_OR_RETURN(config.activation, ActivationField(fields, "hidden_act", "gelu"));
  if (config.hidden_size % config.heads != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: num_attention_heads: found {}, expected a divisor of hidden_size {}",
                    where, config.heads, config.hidden_size));
  }
  config.classifier = classifier;
  if (classifier) DIMMER_RETURN_IF_ERROR(ParseHead(fields, config));
  return config;
}

}  // namespace dimmer
