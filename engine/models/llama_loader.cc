// From tensors on disk to packed weights.
#include <array>

#include "engine/models/llama.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr const char* kPrefix = "model.";

absl::StatusOr<CausalAttention> LoadAttention(const TensorReader& reader, const std::string& name,
                                              const LlamaConfig& config) {
  const int64_t d = config.width;
  const int64_t queries = int64_t{config.heads} * config.head_dim;
  const int64_t keys = int64_t{config.kv_heads} * config.head_dim;
  CausalAttention attention(config.heads, config.kv_heads, config.head_dim,
                            Rotary(config.head_dim, config.rope_theta));
  const Bias bias = config.attention_bias ? Bias::kRequired : Bias::kNone;
  const std::array<LinearPart, 3> parts = {
      LinearPart{name + "q_proj", queries}, {name + "k_proj", keys}, {name + "v_proj", keys}};
  DIMMER_ASSIGN_OR_RETURN(attention.qkv(), reader.LoadLinear(parts, d, MatrixLayout::kOutIn, bias));
  DIMMER_ASSIGN_OR_RETURN(
      attention.output(),
      reader.LoadLinear(LinearPart{name + "o_proj", d}, queries, MatrixLayout::kOutIn, bias));
  return attention;
}

absl::StatusOr<LlamaBlock> LoadBlock(const Package& package, const TensorReader& reader,
                                     const LlamaConfig& config, size_t index) {
  const std::string name = fmt::format("layers.{}.", index);
  const int64_t d = config.width;
  LlamaBlock block;
  DIMMER_ASSIGN_OR_RETURN(block.attention_norm,
                          reader.ScaleNorm(name + "input_layernorm", d, config.rms_norm_epsilon));
  DIMMER_ASSIGN_OR_RETURN(block.attention, LoadAttention(reader, name + "self_attn.", config));
  DIMMER_ASSIGN_OR_RETURN(block.ffn_norm, reader.ScaleNorm(name + "post_attention_layernorm", d,
                                                           config.rms_norm_epsilon));
  const FfnSource source = {.in = name + "mlp.gate_proj",
                            .up = name + "mlp.up_proj",
                            .out = name + "mlp.down_proj",
                            .layout = MatrixLayout::kOutIn,
                            .bias = Bias::kNone,
                            .activation = config.activation,
                            .d = d,
                            .hidden = config.hidden};
  DIMMER_ASSIGN_OR_RETURN(block.ffn, LoadFfn(package, reader, source, index));
  return block;
}

// A bias that config.json does not announce would be left out of the sums.
absl::Status CheckBiases(const Package& package, const LlamaConfig& config) {
  for (const std::string& name : package.weights.names()) {
    if (!name.ends_with("_proj.bias")) continue;
    if (config.attention_bias && name.find(".self_attn.") != std::string::npos) continue;
    return absl::InvalidArgumentError(
        fmt::format("{}: {}: found a bias, expected none: config.json says attention_bias {}, and "
                    "biases of the FFN are not computed",
                    package.directory, name, config.attention_bias));
  }
  return absl::OkStatus();
}

absl::StatusOr<LlamaWeights> LoadWeights(const Package& package) {
  LlamaWeights weights;
  DIMMER_ASSIGN_OR_RETURN(weights.config,
                          ParseLlamaConfig(package.config, package.directory + "/config.json"));
  DIMMER_ASSIGN_OR_RETURN(weights.config.end_ids,
                          EndIds(package, weights.config.vocab_size, weights.config.end_ids));
  const LlamaConfig& config = weights.config;
  DIMMER_RETURN_IF_ERROR(CheckBiases(package, config));
  DIMMER_RETURN_IF_ERROR(CheckModules(package, config.layers, config.hidden));
  const TensorReader reader(package, kPrefix);
  DIMMER_ASSIGN_OR_RETURN(
      weights.head, LoadLmHead(package, reader, "embed_tokens", config.tied_head, config.vocab_size,
                               config.width));
  weights.blocks.resize(config.layers);
  DIMMER_RETURN_IF_ERROR(LoadBlocks(config.layers, [&](size_t i) -> absl::Status {
    DIMMER_ASSIGN_OR_RETURN(weights.blocks[i], LoadBlock(package, reader, config, i));
    return absl::OkStatus();
  }));
  DIMMER_ASSIGN_OR_RETURN(weights.final_norm,
                          reader.ScaleNorm("norm", config.width, config.rms_norm_epsilon));
  return weights;
}

uint64_t CountParameters(const LlamaConfig& c) {
  const uint64_t d = c.width;
  const uint64_t rows = c.head_dim * (uint64_t{c.heads} + c.kv_heads);  // of Q and O, K and V
  const uint64_t biases =
      c.attention_bias ? c.head_dim * (c.heads + 2 * uint64_t{c.kv_heads}) + d : 0;
  const uint64_t attention = 2 * d * rows + biases;
  const uint64_t words = uint64_t{c.vocab_size} * d;
  return words * (c.tied_head ? 1 : 2) + c.layers * (attention + 3 * d * c.hidden + 2 * d) + d;
}

ModelInfo MakeInfo(const LlamaWeights& weights, const Package& package) {
  const LlamaConfig& config = weights.config;
  ModelInfo info;
  info.architecture = package.architecture;
  info.tasks = {Task::kGeneration, Task::kScoring};
  info.max_tokens = config.max_positions;
  info.width = config.width;
  info.layers = config.layers;
  info.vocab_size = config.vocab_size;
  info.kv = {.layers = config.layers, .heads = config.kv_heads, .head_dim = config.head_dim};
  info.end_ids = config.end_ids;
  info.default_max_tokens = kDefaultMaxTokens;
  info.dtype = StoredDType(package, std::string(kPrefix) + "embed_tokens.weight");
  info.parameters = CountParameters(config);
  info.cost.causal = true;
  info.cost.sequence_flops = weights.head.flops();
  info.weight_bytes = weights.head.bytes() + weights.final_norm.bytes();
  for (const LlamaBlock& block : weights.blocks) {
    info.weight_bytes += block.attention_norm.bytes() + block.attention.bytes() +
                         block.ffn_norm.bytes() + block.ffn.layer.bytes();
    info.cost.token_flops += block.attention.token_flops();
    info.cost.attention_flops += block.attention.pair_flops();
    AddFfnCost(package, block.ffn, 6 * uint64_t{config.width}, config.hidden, info.cost);
  }
  DescribeConversion(package, info);
  return info;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> Llama::Load(const Package& package) {
  DIMMER_ASSIGN_OR_RETURN(LlamaWeights weights, LoadWeights(package));
  ModelInfo info = MakeInfo(weights, package);
  return std::unique_ptr<Model>(new Llama(std::move(weights), std::move(info)));
}

}  // namespace dimmer
