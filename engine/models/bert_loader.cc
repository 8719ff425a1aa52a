// From tensors on disk to packed weights.
#include <array>

#include "engine/models/bert.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr std::string_view kClassifierArchitecture = "BertForSequenceClassification";

// Checkpoints of a bare BertModel have no "bert." before their names.
TensorReader ReaderOf(const Package& package) {
  const bool inner = package.weights.Find("bert.embeddings.word_embeddings.weight") != nullptr;
  return {package, inner ? "bert." : ""};
}

absl::StatusOr<Linear> LoadLinear(const TensorReader& reader, const std::string& name, int64_t n,
                                  int64_t k) {
  return reader.LoadLinear(LinearPart{name, n}, k, MatrixLayout::kOutIn, Bias::kRequired);
}

absl::StatusOr<SelfAttention> LoadAttention(const TensorReader& reader, const std::string& layer,
                                            const BertConfig& config) {
  const int64_t d = config.hidden_size;
  SelfAttention attention(config.heads);
  const std::string self = layer + "attention.self.";
  const std::array<LinearPart, 3> parts = {
      LinearPart{self + "query", d}, {self + "key", d}, {self + "value", d}};
  DIMMER_ASSIGN_OR_RETURN(attention.qkv(),
                          reader.LoadLinear(parts, d, MatrixLayout::kOutIn, Bias::kRequired));
  DIMMER_ASSIGN_OR_RETURN(attention.output(),
                          LoadLinear(reader, layer + "attention.output.dense", d, d));
  return attention;
}

absl::StatusOr<BertBlock> LoadBlock(const Package& package, const TensorReader& reader,
                                    const BertConfig& config, size_t index) {
  const std::string layer = fmt::format("encoder.layer.{}.", index);
  BertBlock block;
  DIMMER_ASSIGN_OR_RETURN(block.attention, LoadAttention(reader, layer, config));
  DIMMER_ASSIGN_OR_RETURN(block.attention_norm,
                          reader.Norm(layer + "attention.output.LayerNorm", config.hidden_size,
                                      config.layer_norm_epsilon));
  const FfnSource source = {.in = layer + "intermediate.dense",
                            .up = "",
                            .out = layer + "output.dense",
                            .activation = config.activation,
                            .d = config.hidden_size,
                            .hidden = config.intermediate_size};
  DIMMER_ASSIGN_OR_RETURN(block.ffn, LoadFfn(package, reader, source, index));
  DIMMER_ASSIGN_OR_RETURN(
      block.ffn_norm,
      reader.Norm(layer + "output.LayerNorm", config.hidden_size, config.layer_norm_epsilon));
  return block;
}

uint64_t CountParameters(const BertConfig& c) {
  const uint64_t d = c.hidden_size;
  const uint64_t block =
      4 * (d * d + d) + 4 * d + 2 * d * c.intermediate_size + c.intermediate_size + d;
  uint64_t count =
      d * (uint64_t{c.vocab_size} + c.max_positions + c.type_vocab_size + 2) + c.layers * block;
  if (c.classifier) count += d * d + d + c.labels.size() * (d + 1);
  return count;
}

CostModel MakeCost(const BertWeights& weights, const Package& package) {
  const BertConfig& config = weights.config;
  CostModel cost;
  for (const BertBlock& block : weights.blocks) {
    cost.token_flops += block.attention.token_flops();
    cost.attention_flops += block.attention.pair_flops();
    AddFfnCost(package, block.ffn, 4 * uint64_t{config.hidden_size}, config.intermediate_size,
               cost);
  }
  if (weights.head) {
    cost.sequence_flops = weights.head->pooler.flops() + weights.head->classifier.flops();
  }
  return cost;
}

uint64_t ResidentBytes(const BertWeights& weights) {
  uint64_t bytes = weights.words.bytes() + weights.positions.bytes() + weights.types.bytes() +
                   weights.embedding_norm.bytes();
  for (const BertBlock& block : weights.blocks) {
    bytes += block.attention.bytes() + block.attention_norm.bytes() + block.ffn.layer.bytes() +
             block.ffn_norm.bytes();
  }
  if (weights.head) bytes += weights.head->pooler.bytes() + weights.head->classifier.bytes();
  return bytes;
}

ModelInfo MakeInfo(const BertWeights& weights, const Package& package, std::string dtype) {
  const BertConfig& config = weights.config;
  ModelInfo info;
  info.architecture = package.architecture;
  if (config.classifier) info.tasks.push_back(Task::kClassification);
  info.tasks.push_back(Task::kEmbedding);
  info.labels = config.labels;
  info.multi_label = config.multi_label;
  info.max_tokens = config.max_positions;
  info.width = config.hidden_size;
  info.layers = config.layers;
  info.vocab_size = config.vocab_size;
  info.dtype = std::move(dtype);
  info.parameters = CountParameters(config);
  info.weight_bytes = ResidentBytes(weights);
  info.cost = MakeCost(weights, package);
  DescribeConversion(package, info);
  return info;
}

}  // namespace

absl::StatusOr<BertWeights> LoadBertWeights(const Package& package) {
  BertWeights weights;
  DIMMER_ASSIGN_OR_RETURN(
      weights.config,
      ParseBertConfig(package.config, package.architecture == kClassifierArchitecture,
                      package.directory + "/config.json"));
  const BertConfig& config = weights.config;
  DIMMER_RETURN_IF_ERROR(CheckModules(package, config.layers, config.intermediate_size));
  const TensorReader reader = ReaderOf(package);
  const int64_t d = config.hidden_size;
  DIMMER_ASSIGN_OR_RETURN(weights.words,
                          reader.Table("embeddings.word_embeddings.weight", config.vocab_size, d));
  DIMMER_ASSIGN_OR_RETURN(weights.positions, reader.Table("embeddings.position_embeddings.weight",
                                                          config.max_positions, d));
  DIMMER_ASSIGN_OR_RETURN(weights.types, reader.Table("embeddings.token_type_embeddings.weight",
                                                      config.type_vocab_size, d));
  DIMMER_ASSIGN_OR_RETURN(weights.embedding_norm,
                          reader.Norm("embeddings.LayerNorm", d, config.layer_norm_epsilon));
  weights.blocks.resize(config.layers);
  DIMMER_RETURN_IF_ERROR(LoadBlocks(config.layers, [&](size_t i) -> absl::Status {
    DIMMER_ASSIGN_OR_RETURN(weights.blocks[i], LoadBlock(package, reader, config, i));
    return absl::OkStatus();
  }));
  if (config.classifier) {
    BertClassifier& head = weights.head.emplace();
    DIMMER_ASSIGN_OR_RETURN(head.pooler, LoadLinear(reader, "pooler.dense", d, d));
    // The only tensors beside the encoder's: never under its prefix.
    DIMMER_ASSIGN_OR_RETURN(head.classifier,
                            LoadLinear(TensorReader(package, ""), "classifier",
                                       static_cast<int64_t>(config.labels.size()), d));
  }
  return weights;
}

absl::StatusOr<std::unique_ptr<Model>> Bert::Load(const Package& package) {
  DIMMER_ASSIGN_OR_RETURN(BertWeights weights, LoadBertWeights(package));
  // Named as the largest tensor is stored.
  std::string dtype;
  for (const char* prefix : {"bert.", ""}) {
    const TensorView* words =
        package.weights.Find(std::string(prefix) + "embeddings.word_embeddings.weight");
    if (words != nullptr) dtype = DTypeName(words->dtype);
  }
  ModelInfo info = MakeInfo(weights, package, std::move(dtype));
  return std::unique_ptr<Model>(new Bert(std::move(weights), std::move(info)));
}

}  // namespace dimmer
