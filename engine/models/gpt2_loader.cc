// From tensors on disk to packed weights.
#include "engine/models/gpt2.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr std::string_view kWords = "wte.weight";

// Checkpoints of a bare GPT2Model have no "transformer." before their names.
std::string PrefixOf(const Package& package) {
  const std::string prefix = "transformer.";
  return package.weights.Find(prefix + std::string(kWords)) != nullptr ? prefix : "";
}

// `transformers` stores [in, out]; other programs, [out, in]. Q, K and V together are never square
// and tell which.
MatrixLayout LayoutOf(const Package& package, const std::string& prefix, int64_t d) {
  const TensorView* qkv = package.weights.Find(prefix + "h.0.attn.c_attn.weight");
  const bool out_in = qkv != nullptr && qkv->shape == std::vector<int64_t>{3 * d, d};
  return out_in ? MatrixLayout::kOutIn : MatrixLayout::kInOut;
}

absl::StatusOr<Gpt2Block> LoadBlock(const Package& package, const TensorReader& reader,
                                    const Gpt2Config& config, MatrixLayout layout, size_t index) {
  const std::string name = fmt::format("h.{}.", index);
  const int64_t d = config.width;
  Gpt2Block block;
  DIMMER_ASSIGN_OR_RETURN(block.attention_norm,
                          reader.Norm(name + "ln_1", d, config.layer_norm_epsilon));
  block.attention =
      CausalAttention(config.heads, config.heads, config.width / config.heads, std::nullopt);
  DIMMER_ASSIGN_OR_RETURN(
      block.attention.qkv(),
      reader.LoadLinear(LinearPart{name + "attn.c_attn", 3 * d}, d, layout, Bias::kIfPresent));
  DIMMER_ASSIGN_OR_RETURN(
      block.attention.output(),
      reader.LoadLinear(LinearPart{name + "attn.c_proj", d}, d, layout, Bias::kIfPresent));
  DIMMER_ASSIGN_OR_RETURN(block.ffn_norm, reader.Norm(name + "ln_2", d, config.layer_norm_epsilon));
  const FfnSource source = {.in = name + "mlp.c_fc",
                            .up = "",
                            .out = name + "mlp.c_proj",
                            .layout = layout,
                            .bias = Bias::kIfPresent,
                            .activation = config.activation,
                            .d = d,
                            .hidden = config.hidden};
  DIMMER_ASSIGN_OR_RETURN(block.ffn, LoadFfn(package, reader, source, index));
  return block;
}

absl::StatusOr<Gpt2Weights> LoadWeights(const Package& package) {
  Gpt2Weights weights;
  DIMMER_ASSIGN_OR_RETURN(weights.config,
                          ParseGpt2Config(package.config, package.directory + "/config.json"));
  DIMMER_ASSIGN_OR_RETURN(weights.config.end_ids,
                          EndIds(package, weights.config.vocab_size, weights.config.end_ids));
  const Gpt2Config& config = weights.config;
  DIMMER_RETURN_IF_ERROR(CheckModules(package, config.layers, config.hidden));
  const std::string prefix = PrefixOf(package);
  const TensorReader reader(package, prefix);
  const int64_t d = config.width;
  // Files of the model without its head are common, whatever their config.json says.
  const bool tied = config.tied_head || package.weights.Find("lm_head.weight") == nullptr;
  DIMMER_ASSIGN_OR_RETURN(weights.head,
                          LoadLmHead(package, reader, "wte", tied, config.vocab_size, d));
  DIMMER_ASSIGN_OR_RETURN(weights.positions, reader.Table("wpe.weight", config.max_positions, d));
  const MatrixLayout layout = LayoutOf(package, prefix, d);
  weights.blocks.resize(config.layers);
  DIMMER_RETURN_IF_ERROR(LoadBlocks(config.layers, [&](size_t i) -> absl::Status {
    DIMMER_ASSIGN_OR_RETURN(weights.blocks[i], LoadBlock(package, reader, config, layout, i));
    return absl::OkStatus();
  }));
  DIMMER_ASSIGN_OR_RETURN(weights.final_norm, reader.Norm("ln_f", d, config.layer_norm_epsilon));
  return weights;
}

uint64_t CountParameters(const Gpt2Config& c) {
  const uint64_t d = c.width;
  const uint64_t block = 4 * d * d + 4 * d + 4 * d + 2 * d * c.hidden + c.hidden + d;
  const uint64_t words = uint64_t{c.vocab_size} * d;
  return words * (c.tied_head ? 1 : 2) + uint64_t{c.max_positions} * d + c.layers * block + 2 * d;
}

ModelInfo MakeInfo(const Gpt2Weights& weights, const Package& package) {
  const Gpt2Config& config = weights.config;
  ModelInfo info;
  info.architecture = package.architecture;
  info.tasks = {Task::kGeneration, Task::kScoring};
  info.max_tokens = config.max_positions;
  info.width = config.width;
  info.layers = config.layers;
  info.vocab_size = config.vocab_size;
  info.kv = {
      .layers = config.layers, .heads = config.heads, .head_dim = config.width / config.heads};
  info.end_ids = config.end_ids;
  info.default_max_tokens = kDefaultMaxTokens;
  info.dtype = StoredDType(package, PrefixOf(package) + std::string(kWords));
  info.parameters = CountParameters(config);
  info.cost.causal = true;
  info.cost.sequence_flops = weights.head.flops();
  info.weight_bytes = weights.head.bytes() + weights.positions.bytes() + weights.final_norm.bytes();
  for (const Gpt2Block& block : weights.blocks) {
    info.weight_bytes += block.attention_norm.bytes() + block.attention.bytes() +
                         block.ffn_norm.bytes() + block.ffn.layer.bytes();
    info.cost.token_flops += block.attention.token_flops();
    info.cost.attention_flops += block.attention.pair_flops();
    AddFfnCost(package, block.ffn, 4 * uint64_t{config.width}, config.hidden, info.cost);
  }
  DescribeConversion(package, info);
  return info;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> Gpt2::Load(const Package& package) {
  DIMMER_ASSIGN_OR_RETURN(Gpt2Weights weights, LoadWeights(package));
  ModelInfo info = MakeInfo(weights, package);
  return std::unique_ptr<Model>(new Gpt2(std::move(weights), std::move(info)));
}

}  // namespace dimmer
