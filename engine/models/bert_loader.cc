// From tensors on disk to packed weights.
#include <algorithm>
#include <array>
#include <initializer_list>
#include <mutex>
#include <thread>

#include "engine/models/bert.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr std::string_view kClassifierArchitecture = "BertForSequenceClassification";

// The format that all of the tensors are stored in, or fp32, which holds every value of the others.
WeightFormat CommonFormat(std::span<const TensorView> tensors) {
  for (const TensorView& tensor : tensors) {
    if (tensor.dtype != tensors.front().dtype) return WeightFormat::kF32;
  }
  switch (tensors.front().dtype) {
    case DType::kF16:
      return WeightFormat::kF16;
    case DType::kBF16:
      return WeightFormat::kBF16;
    default:
      return WeightFormat::kF32;
  }
}

// Reads tensors of one package. Checkpoints of a bare BertModel have no "bert." before their names,
// and old ones call a norm's weight and bias gamma and beta.
class TensorReader {
 public:
  explicit TensorReader(const Package& package)
      : weights_(package.weights),
        prefix_(weights_.Find("bert.embeddings.word_embeddings.weight") != nullptr ? "bert." : "") {
  }
  TensorReader(const Package& package, std::string prefix)
      : weights_(package.weights), prefix_(std::move(prefix)) {}

  using Shape = std::initializer_list<int64_t>;

  absl::StatusOr<TensorView> View(const std::string& name, Shape shape) const {
    return weights_.Get(prefix_ + name, {shape.begin(), shape.size()});
  }
  // The fp32 values, in a buffer of this thread that the next call reuses.
  static absl::StatusOr<std::span<const float>> Read(const TensorView& tensor,
                                                     AlignedBuffer<float>& buffer) {
    const auto count = static_cast<size_t>(tensor.elements());
    if (buffer.size() < count) buffer = AlignedBuffer<float>(count);
    const std::span<float> values(buffer.data(), count);
    DIMMER_RETURN_IF_ERROR(ReadFloats(tensor, values));
    ReleasePages(tensor);
    return values;
  }

  absl::StatusOr<Embedding> Table(const std::string& name, int64_t rows, int64_t width) const {
    DIMMER_ASSIGN_OR_RETURN(const TensorView tensor, View(name, {rows, width}));
    return Embedding::From(tensor);
  }

  absl::StatusOr<LayerNorm> Norm(const std::string& name, int64_t d, float epsilon) const {
    const bool old = weights_.Find(prefix_ + name + ".weight") == nullptr &&
                     weights_.Find(prefix_ + name + ".gamma") != nullptr;
    AlignedBuffer<float> gamma_buffer;
    AlignedBuffer<float> beta_buffer;
    DIMMER_ASSIGN_OR_RETURN(const TensorView gamma, View(name + (old ? ".gamma" : ".weight"), {d}));
    DIMMER_ASSIGN_OR_RETURN(const TensorView beta, View(name + (old ? ".beta" : ".bias"), {d}));
    DIMMER_ASSIGN_OR_RETURN(const auto gammas, Read(gamma, gamma_buffer));
    DIMMER_ASSIGN_OR_RETURN(const auto betas, Read(beta, beta_buffer));
    return LayerNorm(gammas, betas, epsilon);
  }

  // One Linear of `names.size()` times `n` outputs, those of the first name first.
  absl::StatusOr<Linear> LoadLinear(std::initializer_list<std::string> names, int64_t n,
                                    int64_t k) const {
    // All are found before memory is taken: no size is trusted before.
    std::vector<TensorView> weights;
    std::vector<TensorView> biases;
    for (const std::string& name : names) {
      DIMMER_ASSIGN_OR_RETURN(weights.emplace_back(), View(name + ".weight", {n, k}));
      DIMMER_ASSIGN_OR_RETURN(biases.emplace_back(), View(name + ".bias", {n}));
    }
    const auto rows = static_cast<size_t>(n);
    Linear linear(rows * weights.size(), static_cast<size_t>(k), CommonFormat(weights));
    AlignedBuffer<float> weight_buffer;
    AlignedBuffer<float> bias_buffer;
    for (size_t i = 0; i < weights.size(); ++i) {
      DIMMER_ASSIGN_OR_RETURN(const auto weight, Read(weights[i], weight_buffer));
      DIMMER_ASSIGN_OR_RETURN(const auto bias, Read(biases[i], bias_buffer));
      linear.Set(i * rows, weight, bias);
    }
    return linear;
  }

 private:
  const Weights& weights_;
  std::string prefix_;
};

absl::StatusOr<SelfAttention> LoadAttention(const TensorReader& reader, const std::string& layer,
                                            const BertConfig& config) {
  const int64_t d = config.hidden_size;
  SelfAttention attention(config.heads);
  const std::string self = layer + "attention.self.";
  DIMMER_ASSIGN_OR_RETURN(attention.qkv(),
                          reader.LoadLinear({self + "query", self + "key", self + "value"}, d, d));
  DIMMER_ASSIGN_OR_RETURN(attention.output(),
                          reader.LoadLinear({layer + "attention.output.dense"}, d, d));
  return attention;
}

absl::StatusOr<PackedFfn> LoadFfn(const TensorReader& reader, const std::string& layer,
                                  const BertConfig& config, const MoeModuleSpec* spec) {
  const int64_t d = config.hidden_size;
  const int64_t hidden = config.intermediate_size;
  DIMMER_ASSIGN_OR_RETURN(const TensorView w1,
                          reader.View(layer + "intermediate.dense.weight", {hidden, d}));
  DIMMER_ASSIGN_OR_RETURN(const TensorView b1,
                          reader.View(layer + "intermediate.dense.bias", {hidden}));
  DIMMER_ASSIGN_OR_RETURN(const TensorView w2,
                          reader.View(layer + "output.dense.weight", {d, hidden}));
  DIMMER_ASSIGN_OR_RETURN(const TensorView b2, reader.View(layer + "output.dense.bias", {d}));
  const size_t size = spec != nullptr ? spec->expert_size : DenseSlabSize(config.intermediate_size);
  const size_t experts =
      spec != nullptr ? spec->experts : (config.intermediate_size + size - 1) / size;
  PackedFfn ffn = MakePackedFfn(config.hidden_size, experts, size, config.activation,
                                CommonFormat(std::array{w1, w2}));
  AlignedBuffer<float> matrix;
  AlignedBuffer<float> vector;
  {
    DIMMER_ASSIGN_OR_RETURN(const auto weights, TensorReader::Read(w1, matrix));
    DIMMER_ASSIGN_OR_RETURN(const auto biases, TensorReader::Read(b1, vector));
    PackFfnIn(weights, biases, ffn);
  }
  DIMMER_ASSIGN_OR_RETURN(const auto weights, TensorReader::Read(w2, matrix));
  DIMMER_ASSIGN_OR_RETURN(const auto biases, TensorReader::Read(b2, vector));
  PackFfnOut(weights, biases, ffn);
  return ffn;
}

absl::StatusOr<TensorView> RouterTensor(const Package& package, const std::string& name,
                                        const std::vector<int64_t>& shape) {
  const TensorView* tensor = package.routers == nullptr ? nullptr : package.routers->Find(name);
  if (tensor == nullptr) {
    return absl::NotFoundError(
        fmt::format("{}/routers.safetensors: {}: no such tensor", package.directory, name));
  }
  if (tensor->shape != shape) {
    return absl::InvalidArgumentError(fmt::format("{}: {}: found shape {}, expected {}",
                                                  tensor->file, name, ShapeString(tensor->shape),
                                                  ShapeString(shape)));
  }
  return *tensor;
}

absl::StatusOr<Router> LoadRouter(const Package& package, const MoeModuleSpec& spec, size_t d) {
  AlignedBuffer<float> buffer;
  DIMMER_ASSIGN_OR_RETURN(const TensorView first,
                          RouterTensor(package, RouterTensorName(spec.layer, spec.module, 1),
                                       {spec.router_width, static_cast<int64_t>(d)}));
  DIMMER_ASSIGN_OR_RETURN(const TensorView second,
                          RouterTensor(package, RouterTensorName(spec.layer, spec.module, 2),
                                       {spec.experts, spec.router_width}));
  Router router(d, spec.router_width, spec.experts, CommonFormat(std::array{first, second}));
  {
    DIMMER_ASSIGN_OR_RETURN(const auto values, TensorReader::Read(first, buffer));
    router.first().Set(0, values, {});
  }
  DIMMER_ASSIGN_OR_RETURN(const auto values, TensorReader::Read(second, buffer));
  router.second().Set(0, values, {});
  return router;
}

// The spec of layer's feed-forward module, or null.
const MoeModuleSpec* FindSpec(const Package& package, size_t layer) {
  if (!package.moe) return nullptr;
  for (const MoeModuleSpec& spec : package.moe->modules) {
    if (spec.layer == layer && spec.module == Module::kFfn) return &spec;
  }
  return nullptr;
}

absl::Status CheckSpecs(const Package& package, const BertConfig& config) {
  if (!package.moe) return absl::OkStatus();
  for (const MoeModuleSpec& spec : package.moe->modules) {
    const std::string where =
        fmt::format("{}/dimmer.json: layer {}", package.directory, spec.layer);
    if (spec.layer >= config.layers) {
      return absl::InvalidArgumentError(
          fmt::format("{}: found in a model of {} layers, expected 0 to {}", where, config.layers,
                      config.layers - 1));
    }
    if (spec.module != Module::kFfn) {
      return absl::UnimplementedError(
          fmt::format("{}: found module {}, expected ffn", where, ModuleName(spec.module)));
    }
    if (uint64_t{spec.experts} * spec.expert_size != config.intermediate_size ||
        spec.router_width == 0) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: found {} experts of {} neurons and a router of width {}, expected {} neurons in all "
          "and a positive width",
          where, spec.experts, spec.expert_size, spec.router_width, config.intermediate_size));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<BertBlock> LoadBlock(const Package& package, const TensorReader& reader,
                                    const BertConfig& config, size_t index) {
  const std::string layer = fmt::format("encoder.layer.{}.", index);
  const MoeModuleSpec* spec = FindSpec(package, index);
  BertBlock block;
  DIMMER_ASSIGN_OR_RETURN(block.attention, LoadAttention(reader, layer, config));
  DIMMER_ASSIGN_OR_RETURN(block.attention_norm,
                          reader.Norm(layer + "attention.output.LayerNorm", config.hidden_size,
                                      config.layer_norm_epsilon));
  DIMMER_ASSIGN_OR_RETURN(PackedFfn ffn, LoadFfn(reader, layer, config, spec));
  std::optional<Router> router;
  if (spec != nullptr) {
    DIMMER_ASSIGN_OR_RETURN(router, LoadRouter(package, *spec, config.hidden_size));
    block.module = static_cast<size_t>(spec - package.moe->modules.data());
  }
  block.ffn =
      MoeLayer(std::move(ffn), std::move(router), spec != nullptr ? package.moe->gate : GateSpec{});
  DIMMER_ASSIGN_OR_RETURN(
      block.ffn_norm,
      reader.Norm(layer + "output.LayerNorm", config.hidden_size, config.layer_norm_epsilon));
  return block;
}

// Blocks are independent of one another and packing is most of a model's start: a few threads.
absl::Status LoadBlocks(const Package& package, const TensorReader& reader,
                        const BertConfig& config, std::vector<BertBlock>& blocks) {
  blocks.resize(config.layers);
  std::mutex mutex;
  absl::Status status;
  size_t failed = blocks.size();
  ThreadPool pool(std::clamp<size_t>(std::thread::hardware_concurrency(), 1, 8));
  pool.ParallelFor(blocks.size(), [&](size_t i, size_t) {
    absl::StatusOr<BertBlock> block = LoadBlock(package, reader, config, i);
    if (block.ok()) {
      blocks[i] = *std::move(block);
      return;
    }
    std::lock_guard lock(mutex);
    if (i < failed) {  // the same message whichever thread comes first
      failed = i;
      status = block.status();
    }
  });
  return status;
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
  const uint64_t neuron_flops = 4 * uint64_t{config.hidden_size};  // in and out
  CostModel cost;
  if (package.moe) cost.moe.resize(package.moe->modules.size());
  for (const BertBlock& block : weights.blocks) {
    cost.token_flops += block.attention.token_flops();
    cost.attention_flops += block.attention.pair_flops();
    if (!block.module) {
      cost.token_flops += neuron_flops * config.intermediate_size;
      continue;
    }
    const MoeModuleSpec& spec = package.moe->modules[*block.module];
    cost.moe[*block.module] = {spec.layer, spec.module, spec.experts,
                               neuron_flops * spec.expert_size, block.ffn.router_flops()};
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
    bytes += block.attention.bytes() + block.attention_norm.bytes() + block.ffn.bytes() +
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
  if (package.moe) {
    info.calibration = package.moe->calibration;
    info.gate = package.moe->gate;
    // tau only switches a top-k gate on and off (layers/gate.h); converted to be on.
    if (info.gate.kind == GateKind::kTopK) info.gate.default_tau = 1;
    info.converted = true;
    info.provenance = package.moe->provenance;
  }
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
  DIMMER_RETURN_IF_ERROR(CheckSpecs(package, config));
  const TensorReader reader(package);
  const int64_t d = config.hidden_size;
  DIMMER_ASSIGN_OR_RETURN(weights.words,
                          reader.Table("embeddings.word_embeddings.weight", config.vocab_size, d));
  DIMMER_ASSIGN_OR_RETURN(weights.positions, reader.Table("embeddings.position_embeddings.weight",
                                                          config.max_positions, d));
  DIMMER_ASSIGN_OR_RETURN(weights.types, reader.Table("embeddings.token_type_embeddings.weight",
                                                      config.type_vocab_size, d));
  DIMMER_ASSIGN_OR_RETURN(weights.embedding_norm,
                          reader.Norm("embeddings.LayerNorm", d, config.layer_norm_epsilon));
  DIMMER_RETURN_IF_ERROR(LoadBlocks(package, reader, config, weights.blocks));
  if (config.classifier) {
    BertClassifier& head = weights.head.emplace();
    DIMMER_ASSIGN_OR_RETURN(head.pooler, reader.LoadLinear({"pooler.dense"}, d, d));
    // The only tensors beside the encoder's: never under its prefix.
    DIMMER_ASSIGN_OR_RETURN(
        head.classifier,
        TensorReader(package, "")
            .LoadLinear({"classifier"}, static_cast<int64_t>(config.labels.size()), d));
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
