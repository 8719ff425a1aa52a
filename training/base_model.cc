#include "training/base_model.h"

#include <optional>
#include <utility>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"
#include "training/random.h"

namespace dimmer {
namespace {

constexpr int64_t kMaxSize = 1 << 20;  // of any one dimension; the files' own sizes bound the rest

absl::StatusOr<BertShape> ShapeFromConfig(const JsonFields& config, int64_t classes) {
  BertShape shape;
  shape.classes = classes;
  DIMMER_ASSIGN_OR_RETURN(shape.width, config.Int("hidden_size", 1, kMaxSize));
  DIMMER_ASSIGN_OR_RETURN(shape.layers, config.Int("num_hidden_layers", 1, 1024));
  DIMMER_ASSIGN_OR_RETURN(shape.heads, config.Int("num_attention_heads", 1, kMaxSize));
  DIMMER_ASSIGN_OR_RETURN(shape.hidden, config.Int("intermediate_size", 1, kMaxSize));
  DIMMER_ASSIGN_OR_RETURN(shape.vocab, config.Int("vocab_size", 1, 1 << 24));
  DIMMER_ASSIGN_OR_RETURN(shape.positions, config.Int("max_position_embeddings", 1, kMaxSize));
  DIMMER_ASSIGN_OR_RETURN(shape.types, config.Int("type_vocab_size", 1, 1024, 2));
  DIMMER_ASSIGN_OR_RETURN(shape.norm_epsilon, config.Number("layer_norm_eps", 0, 1, 1e-12));
  DIMMER_ASSIGN_OR_RETURN(shape.dropout, config.Number("hidden_dropout_prob", 0, 0.9, 0.1));
  if (shape.width % shape.heads != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: num_attention_heads: found {}, expected a divisor of hidden_size {}",
                    config.where(), shape.heads, shape.width));
  }
  DIMMER_ASSIGN_OR_RETURN(const std::string position,
                          config.String("position_embedding_type", "absolute"));
  if (position != "absolute") {
    return absl::UnimplementedError(
        fmt::format("{}: position_embedding_type: found \"{}\", expected \"absolute\"",
                    config.where(), position));
  }
  return shape;
}

// The class index in the checkpoint of each of `labels`; nothing unless the sets are equal.
std::optional<std::vector<int64_t>> MatchLabels(const nlohmann::json& config,
                                                std::span<const std::string> labels) {
  const auto ids = config.find("id2label");
  if (ids == config.end() || !ids->is_object() || ids->size() != labels.size()) return std::nullopt;
  std::vector<int64_t> rows;
  for (const std::string& label : labels) {
    for (size_t i = 0; i < labels.size(); ++i) {
      const auto found = ids->find(std::to_string(i));
      if (found != ids->end() && *found == label) rows.push_back(static_cast<int64_t>(i));
    }
  }
  if (rows.size() != labels.size()) return std::nullopt;
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

absl::StatusOr<BaseModel> LoadBaseModel(const std::string& directory,
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
  DIMMER_ASSIGN_OR_RETURN(const JsonFields config,
                          JsonFields::Of(model.config, directory + "/config.json"));
  DIMMER_ASSIGN_OR_RETURN(model.shape,
                          ShapeFromConfig(config, static_cast<int64_t>(labels.size())));
  DIMMER_ASSIGN_OR_RETURN(const double deviation, config.Number("initializer_range", 0, 1, 0.02));
  const auto kept = has_head ? MatchLabels(model.config, labels) : std::nullopt;
  model.fresh_classifier = !kept.has_value();

  const std::string prefix = "bert.";
  const bool prefixed = package.weights.Find("bert.embeddings.word_embeddings.weight") != nullptr;
  uint64_t number = 0;
  for (const NamedShape& tensor : BertTensors(model.shape)) {
    ++number;
    const bool encoder = tensor.name.starts_with(prefix);
    const std::string name = encoder && !prefixed ? tensor.name.substr(prefix.size()) : tensor.name;
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

}  // namespace dimmer
