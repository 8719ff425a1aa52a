#include "engine/models/loading.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/models/config_fields.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

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

// fp32 values of tensors, one after the other. A span is valid until the next call.
class FloatReader {
 public:
  absl::StatusOr<std::span<const float>> Read(const TensorView& tensor) {
    return ReadInto(tensor, values_);
  }

  // A matrix as [outputs, inputs].
  absl::StatusOr<std::span<const float>> ReadMatrix(const TensorView& tensor, MatrixLayout layout) {
    DIMMER_ASSIGN_OR_RETURN(const std::span<const float> stored, ReadInto(tensor, values_));
    if (layout == MatrixLayout::kOutIn) return stored;
    const auto inputs = static_cast<size_t>(tensor.shape[0]);
    const auto outputs = static_cast<size_t>(tensor.shape[1]);
    if (turned_.size() < stored.size()) turned_ = AlignedBuffer<float>(stored.size());
    constexpr size_t kTile = 16;  // rows and columns that are in the cache together
    for (size_t first = 0; first < outputs; first += kTile) {
      const size_t last = std::min(outputs, first + kTile);
      for (size_t i = 0; i < inputs; ++i) {
        for (size_t o = first; o < last; ++o) {
          turned_.data()[o * inputs + i] = stored[i * outputs + o];
        }
      }
    }
    return std::span<const float>(turned_.data(), stored.size());
  }

 private:
  static absl::StatusOr<std::span<const float>> ReadInto(const TensorView& tensor,
                                                         AlignedBuffer<float>& buffer) {
    const auto count = static_cast<size_t>(tensor.elements());
    if (buffer.size() < count) buffer = AlignedBuffer<float>(count);
    const std::span<float> values(buffer.data(), count);
    DIMMER_RETURN_IF_ERROR(ReadFloats(tensor, values));
    ReleasePages(tensor);
    return values;
  }

  AlignedBuffer<float> values_;
  AlignedBuffer<float> turned_;
};

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
  DIMMER_ASSIGN_OR_RETURN(const TensorView first,
                          RouterTensor(package, RouterTensorName(spec.layer, spec.module, 1),
                                       {spec.router_width, static_cast<int64_t>(d)}));
  DIMMER_ASSIGN_OR_RETURN(const TensorView second,
                          RouterTensor(package, RouterTensorName(spec.layer, spec.module, 2),
                                       {spec.experts, spec.router_width}));
  Router router(d, spec.router_width, spec.experts, CommonFormat(std::array{first, second}));
  FloatReader floats;
  {
    DIMMER_ASSIGN_OR_RETURN(const auto values, floats.Read(first));
    router.first().Set(0, values, {});
  }
  DIMMER_ASSIGN_OR_RETURN(const auto values, floats.Read(second));
  router.second().Set(0, values, {});
  return router;
}

// The spec of a layer's feed-forward module, or null.
const MoeModuleSpec* FindSpec(const Package& package, size_t layer) {
  if (!package.moe) return nullptr;
  for (const MoeModuleSpec& spec : package.moe->modules) {
    if (spec.layer == layer && spec.module == Module::kFfn) return &spec;
  }
  return nullptr;
}

// A bias that may be absent, and then is not read.
absl::StatusOr<std::optional<TensorView>> BiasView(const TensorReader& reader,
                                                   const std::string& name, int64_t outputs,
                                                   Bias bias) {
  if (bias == Bias::kNone || (bias == Bias::kIfPresent && !reader.Has(name + ".bias"))) {
    return std::nullopt;
  }
  DIMMER_ASSIGN_OR_RETURN(const TensorView view, reader.View(name + ".bias", {outputs}));
  return view;
}

absl::StatusOr<PackedFfn> LoadPackedFfn(const TensorReader& reader, const FfnSource& source,
                                        const MoeModuleSpec* spec) {
  // All are found before memory is taken: no size is trusted before.
  std::vector<TensorView> matrices;
  DIMMER_ASSIGN_OR_RETURN(
      matrices.emplace_back(),
      reader.Matrix(source.in + ".weight", source.hidden, source.d, source.layout));
  DIMMER_ASSIGN_OR_RETURN(matrices.emplace_back(), reader.Matrix(source.out + ".weight", source.d,
                                                                 source.hidden, source.layout));
  if (!source.up.empty()) {
    DIMMER_ASSIGN_OR_RETURN(
        matrices.emplace_back(),
        reader.Matrix(source.up + ".weight", source.hidden, source.d, source.layout));
  }
  DIMMER_ASSIGN_OR_RETURN(const auto b1, BiasView(reader, source.in, source.hidden, source.bias));
  DIMMER_ASSIGN_OR_RETURN(const auto b2, BiasView(reader, source.out, source.d, source.bias));
  const auto hidden = static_cast<size_t>(source.hidden);
  const size_t size = spec != nullptr ? spec->expert_size : DenseSlabSize(hidden);
  const size_t experts = spec != nullptr ? spec->experts : (hidden + size - 1) / size;
  PackedFfn ffn = MakePackedFfn(static_cast<size_t>(source.d), experts, size, source.activation,
                                CommonFormat(matrices));
  FloatReader weights;
  FloatReader biases;
  std::span<const float> bias;
  {
    DIMMER_ASSIGN_OR_RETURN(const auto in, weights.ReadMatrix(matrices[0], source.layout));
    if (b1) {
      DIMMER_ASSIGN_OR_RETURN(bias, biases.Read(*b1));
    }
    PackFfnIn(in, bias, ffn);
  }
  if (!source.up.empty()) {
    DIMMER_ASSIGN_OR_RETURN(const auto up, weights.ReadMatrix(matrices[2], source.layout));
    PackFfnUp(up, ffn);
  }
  DIMMER_ASSIGN_OR_RETURN(const auto out, weights.ReadMatrix(matrices[1], source.layout));
  bias = {};
  if (b2) {
    DIMMER_ASSIGN_OR_RETURN(bias, biases.Read(*b2));
  }
  PackFfnOut(out, bias, ffn);
  return ffn;
}

}  // namespace

absl::StatusOr<TensorView> TensorReader::Matrix(const std::string& name, int64_t outputs,
                                                int64_t inputs, MatrixLayout layout) const {
  return layout == MatrixLayout::kOutIn ? View(name, {outputs, inputs})
                                        : View(name, {inputs, outputs});
}

absl::StatusOr<Embedding> TensorReader::Table(const std::string& name, int64_t rows,
                                              int64_t width) const {
  DIMMER_ASSIGN_OR_RETURN(const TensorView tensor, View(name, {rows, width}));
  return Embedding::From(tensor);
}

absl::StatusOr<LayerNorm> TensorReader::Norm(const std::string& name, int64_t d,
                                             float epsilon) const {
  const bool old = !Has(name + ".weight") && Has(name + ".gamma");
  DIMMER_ASSIGN_OR_RETURN(const TensorView gamma, View(name + (old ? ".gamma" : ".weight"), {d}));
  DIMMER_ASSIGN_OR_RETURN(const TensorView beta, View(name + (old ? ".beta" : ".bias"), {d}));
  FloatReader gamma_reader;
  FloatReader beta_reader;
  DIMMER_ASSIGN_OR_RETURN(const auto gammas, gamma_reader.Read(gamma));
  DIMMER_ASSIGN_OR_RETURN(const auto betas, beta_reader.Read(beta));
  return LayerNorm(gammas, betas, epsilon);
}

absl::StatusOr<RmsNorm> TensorReader::ScaleNorm(const std::string& name, int64_t d,
                                                float epsilon) const {
  DIMMER_ASSIGN_OR_RETURN(const TensorView gamma, View(name + ".weight", {d}));
  FloatReader reader;
  DIMMER_ASSIGN_OR_RETURN(const auto gammas, reader.Read(gamma));
  return RmsNorm(gammas, epsilon);
}

absl::StatusOr<Linear> TensorReader::LoadLinear(std::span<const LinearPart> parts, int64_t inputs,
                                                MatrixLayout layout, Bias bias) const {
  // All are found before memory is taken: no size is trusted before.
  std::vector<TensorView> weights;
  std::vector<std::optional<TensorView>> biases;
  size_t outputs = 0;
  for (const LinearPart& part : parts) {
    DIMMER_ASSIGN_OR_RETURN(weights.emplace_back(),
                            Matrix(part.name + ".weight", part.outputs, inputs, layout));
    DIMMER_ASSIGN_OR_RETURN(biases.emplace_back(), BiasView(*this, part.name, part.outputs, bias));
    outputs += static_cast<size_t>(part.outputs);
  }
  Linear linear(outputs, static_cast<size_t>(inputs), CommonFormat(weights));
  FloatReader weight_reader;
  FloatReader bias_reader;
  size_t first = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    DIMMER_ASSIGN_OR_RETURN(const auto weight, weight_reader.ReadMatrix(weights[i], layout));
    std::span<const float> values;
    if (biases[i]) {
      DIMMER_ASSIGN_OR_RETURN(values, bias_reader.Read(*biases[i]));
    }
    linear.Set(first, weight, values);
    first += static_cast<size_t>(parts[i].outputs);
  }
  return linear;
}

absl::StatusOr<LoadedFfn> LoadFfn(const Package& package, const TensorReader& reader,
                                  const FfnSource& source, size_t layer) {
  const MoeModuleSpec* spec = FindSpec(package, layer);
  LoadedFfn loaded;
  DIMMER_ASSIGN_OR_RETURN(PackedFfn ffn, LoadPackedFfn(reader, source, spec));
  std::optional<Router> router;
  GateSpec gate;
  if (spec != nullptr) {
    DIMMER_ASSIGN_OR_RETURN(router, LoadRouter(package, *spec, static_cast<size_t>(source.d)));
    gate = package.moe->gate;
    loaded.module = static_cast<size_t>(spec - package.moe->modules.data());
  }
  loaded.layer = MoeLayer(std::move(ffn), std::move(router), gate);
  return loaded;
}

absl::StatusOr<LmHead> LoadLmHead(const Package& package, const TensorReader& reader,
                                  const std::string& words, bool tied, int64_t vocab, int64_t d) {
  const TensorReader outer(package, "");
  if (tied) {
    DIMMER_ASSIGN_OR_RETURN(Linear head, reader.LoadLinear(LinearPart{words, vocab}, d,
                                                           MatrixLayout::kOutIn, Bias::kNone));
    return LmHead(std::move(head));
  }
  DIMMER_ASSIGN_OR_RETURN(Linear head, outer.LoadLinear(LinearPart{"lm_head", vocab}, d,
                                                        MatrixLayout::kOutIn, Bias::kNone));
  DIMMER_ASSIGN_OR_RETURN(Embedding table, reader.Table(words + ".weight", vocab, d));
  return LmHead(std::move(head), std::move(table));
}

absl::StatusOr<std::vector<int32_t>> EndIds(const Package& package, uint32_t vocab_size,
                                            std::vector<int32_t> stated) {
  const std::string path = package.directory + "/generation_config.json";
  const absl::StatusOr<std::string> text = ReadTextFile(path);
  if (absl::IsNotFound(text.status())) return stated;
  DIMMER_RETURN_IF_ERROR(text.status());
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(*text, path));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, path));
  if (!fields.Has("eos_token_id")) return stated;
  return EndIdsField(fields, vocab_size, std::nullopt);
}

std::string StoredDType(const Package& package, const std::string& tensor) {
  const TensorView* view = package.weights.Find(tensor);
  return view == nullptr ? "" : std::string(DTypeName(view->dtype));
}

absl::Status CheckModules(const Package& package, size_t layers, uint32_t hidden) {
  if (!package.moe) return absl::OkStatus();
  for (const MoeModuleSpec& spec : package.moe->modules) {
    const std::string where =
        fmt::format("{}/dimmer.json: layer {}", package.directory, spec.layer);
    if (spec.layer >= layers) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: found in a model of {} layers, expected 0 to {}", where, layers, layers - 1));
    }
    if (spec.module != Module::kFfn) {
      return absl::UnimplementedError(
          fmt::format("{}: found module {}, expected ffn", where, ModuleName(spec.module)));
    }
    if (uint64_t{spec.experts} * spec.expert_size != hidden || spec.router_width == 0) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: found {} experts of {} neurons and a router of width {}, expected {} neurons in all "
          "and a positive width",
          where, spec.experts, spec.expert_size, spec.router_width, hidden));
    }
  }
  return absl::OkStatus();
}

absl::Status LoadBlocks(size_t count, absl::FunctionRef<absl::Status(size_t)> load) {
  std::mutex mutex;
  absl::Status status;
  size_t failed = count;
  ThreadPool pool(std::clamp<size_t>(std::thread::hardware_concurrency(), 1, 8));
  pool.ParallelFor(count, [&](size_t i, size_t) {
    absl::Status loaded = load(i);
    if (loaded.ok()) return;
    std::lock_guard lock(mutex);
    if (i < failed) {  // the same message whichever thread comes first
      failed = i;
      status = std::move(loaded);
    }
  });
  return status;
}

void AddFfnCost(const Package& package, const LoadedFfn& ffn, uint64_t neuron_flops,
                uint64_t hidden, CostModel& cost) {
  if (!ffn.module) {
    cost.token_flops += neuron_flops * hidden;
    return;
  }
  if (cost.moe.empty()) cost.moe.resize(package.moe->modules.size());
  const MoeModuleSpec& spec = package.moe->modules[*ffn.module];
  cost.moe[*ffn.module] = {spec.layer, spec.module, spec.experts, neuron_flops * spec.expert_size,
                           ffn.layer.router_flops()};
}

void DescribeConversion(const Package& package, ModelInfo& info) {
  if (!package.moe) return;
  info.calibration = package.moe->calibration;
  info.gate = package.moe->gate;
  // tau only switches a top-k gate on and off (layers/gate.h); converted to be on.
  if (info.gate.kind == GateKind::kTopK) info.gate.default_tau = 1;
  info.converted = true;
  info.provenance = package.moe->provenance;
}

}  // namespace dimmer
