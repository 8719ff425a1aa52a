#include "training/base_model.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "engine/models/bert_config.h"
#include "engine/models/gpt2_config.h"
#include "engine/models/llama_config.h"
#include "engine/models/loading.h"
#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"
#include "training/random.h"

namespace dimmer {
namespace {

BertShape ShapeOf(const BertConfig& config, size_t classes) {
  BertShape shape;
  shape.width = config.hidden_size;
  shape.layers = config.layers;
  shape.heads = config.heads;
  shape.hidden = config.intermediate_size;
  shape.vocab = config.vocab_size;
  shape.positions = config.max_positions;
  shape.types = config.type_vocab_size;
  shape.classes = static_cast<int64_t>(classes);
  shape.norm_epsilon = config.layer_norm_epsilon;
  return shape;
}

// Older checkpoints call LayerNorm's weight and bias gamma and beta.
std::string OldNormName(std::string name) {
  for (const auto& [now, before] : {std::pair(".LayerNorm.weight", ".LayerNorm.gamma"),
                                    std::pair(".LayerNorm.bias", ".LayerNorm.beta")}) {
    if (name.ends_with(now))
      name.replace(name.size() - std::strlen(now), std::string::npos, before);
  }
  return name;
}

// The class index in the checkpoint of each of `labels`; nothing unless the sets are equal.
std::optional<std::vector<int64_t>> MatchLabels(const std::vector<std::string>& known,
                                                std::span<const std::string> labels) {
  if (known.size() != labels.size()) return std::nullopt;
  std::vector<int64_t> rows;
  for (const std::string& label : labels) {
    const auto found = std::find(known.begin(), known.end(), label);
    if (found == known.end()) return std::nullopt;
    rows.push_back(found - known.begin());
  }
  return rows;
}

std::vector<float> Draw(const std::vector<int64_t>& shape, double deviation, uint64_t key) {
  size_t count = 1;
  for (int64_t size : shape) count *= static_cast<size_t>(size);
  std::vector<float> values(count, 0.0F);
  if (shape.size() == 1) return values;  // biases start at zero
  RandomStream random(key);
  for (float& value : values) value = static_cast<float>(random.Normal() * deviation);
  return values;
}

std::vector<float> SelectRows(const std::vector<float>& values, std::span<const int64_t> rows) {
  const size_t width = values.size() / rows.size();
  std::vector<float> selected;
  for (int64_t row : rows) {
    const auto begin = values.begin() + static_cast<ptrdiff_t>(row * width);
    selected.insert(selected.end(), begin, begin + static_cast<ptrdiff_t>(width));
  }
  return selected;
}

}  // namespace

absl::StatusOr<BaseModel> LoadBaseClassifier(const std::string& directory,
                                             std::span<const std::string> labels, uint64_t seed) {
  DIMMER_ASSIGN_OR_RETURN(const Package package, Package::Open(directory));
  const bool has_head = package.architecture == "BertForSequenceClassification";
  if (!has_head && package.architecture != "BertModel") {
    return absl::UnimplementedError(
        fmt::format("{}/config.json: architectures: found \"{}\", expected \"BertModel\" or "
                    "\"BertForSequenceClassification\"",
                    directory, package.architecture));
  }
  BaseModel model;
  model.config = package.config;
  const std::string where = directory + "/config.json";
  DIMMER_ASSIGN_OR_RETURN(const BertConfig config,
                          ParseBertConfig(package.config, has_head, where));
  model.activation = config.activation;
  BertShape shape = ShapeOf(config, labels.size());
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(package.config, where));
  DIMMER_ASSIGN_OR_RETURN(shape.dropout, fields.Number("hidden_dropout_prob", 0, 0.9, 0.1));
  DIMMER_ASSIGN_OR_RETURN(shape.attention_dropout,
                          fields.Number("attention_probs_dropout_prob", 0, 0.9, 0.1));
  shape.classifier_dropout = shape.dropout;  // as transformers does; null counts as absent
  if (package.config.contains("classifier_dropout") &&
      !package.config["classifier_dropout"].is_null()) {
    DIMMER_ASSIGN_OR_RETURN(shape.classifier_dropout,
                            fields.Number("classifier_dropout", 0, 0.9, 0.1));
  }
  DIMMER_ASSIGN_OR_RETURN(const double deviation, fields.Number("initializer_range", 0, 1, 0.02));
  const auto kept = has_head ? MatchLabels(config.labels, labels) : std::nullopt;
  model.fresh_classifier = !kept.has_value();

  model.shape = shape;
  model.layout = LayoutOf(shape);

  const std::string prefix = "bert.";
  const bool prefixed = package.weights.Find("bert.embeddings.word_embeddings.weight") != nullptr;
  uint64_t number = 0;
  for (const NamedShape& tensor : model.layout.tensors) {
    ++number;
    const bool encoder = tensor.name.starts_with(prefix);
    std::string name = encoder && !prefixed ? tensor.name.substr(prefix.size()) : tensor.name;
    if (package.weights.Find(name) == nullptr) name = OldNormName(name);
    const bool missing_pooler =
        tensor.name.starts_with("bert.pooler.") && package.weights.Find(name) == nullptr;
    model.fresh_pooler = model.fresh_pooler || missing_pooler;
    if (missing_pooler || (!encoder && model.fresh_classifier)) {
      model.weights[tensor.name] = Draw(tensor.shape, deviation, RandomKey({seed, 0x1417, number}));
      continue;
    }
    DIMMER_ASSIGN_OR_RETURN(std::vector<float> values, package.weights.Floats(name, tensor.shape));
    if (!encoder) values = SelectRows(values, *kept);
    model.weights[tensor.name] = std::move(values);
  }
  return model;
}

absl::StatusOr<BaseModel> LoadBaseLanguageModel(const std::string& directory) {
  DIMMER_ASSIGN_OR_RETURN(const Package package, Package::Open(directory));
  const std::string where = directory + "/config.json";
  BaseModel model;
  model.config = package.config;
  std::string prefix;  // that files of the model without its head leave out
  if (package.architecture == "GPT2LMHeadModel") {
    DIMMER_ASSIGN_OR_RETURN(model.shape, Gpt2ShapeOf(package.config, where));
    DIMMER_ASSIGN_OR_RETURN(const Gpt2Config config, ParseGpt2Config(package.config, where));
    model.activation = config.activation;
    DIMMER_ASSIGN_OR_RETURN(model.end_ids, EndIds(package, config.vocab_size, config.end_ids));
    prefix = "transformer.";
  } else if (package.architecture == "LlamaForCausalLM") {
    DIMMER_ASSIGN_OR_RETURN(model.shape, LlamaShapeOf(package.config, where));
    DIMMER_ASSIGN_OR_RETURN(const LlamaConfig config, ParseLlamaConfig(package.config, where));
    model.activation = config.activation;
    DIMMER_ASSIGN_OR_RETURN(model.end_ids, EndIds(package, config.vocab_size, config.end_ids));
    prefix = "model.";
  } else {
    return absl::UnimplementedError(
        fmt::format("{}: architectures: found \"{}\", expected \"GPT2LMHeadModel\" or "
                    "\"LlamaForCausalLM\"",
                    where, package.architecture));
  }
  model.layout = LayoutOf(model.shape);
  const bool prefixed = package.weights.Find(model.layout.tensors.front().name) != nullptr;
  for (const NamedShape& tensor : model.layout.tensors) {
    const bool bare = !prefixed && tensor.name.starts_with(prefix);
    const std::string name = bare ? tensor.name.substr(prefix.size()) : tensor.name;
    DIMMER_ASSIGN_OR_RETURN(model.weights[tensor.name], package.weights.Floats(name, tensor.shape));
  }
  if (std::holds_alternative<LlamaShape>(model.shape)) {
    for (const std::string& name : package.weights.names()) {
      if (!name.ends_with(".bias")) continue;
      return absl::UnimplementedError(
          fmt::format("{}: {}: Llama is trained here without biases", directory, name));
    }
  }
  return model;
}

}  // namespace dimmer
