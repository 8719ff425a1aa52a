#include "training/import_gpt.h"

#include <algorithm>
#include <list>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "engine/package/json_fields.h"
#include "engine/package/safetensors.h"
#include "engine/util/status.h"
#include "training/new_folder.h"

namespace dimmer {
namespace {

struct GptShape {
  int64_t layers = 0, heads = 0, d = 0, vocab = 0, context = 0;
  int64_t d_ff = 0;  // as the tensors say
};

absl::StatusOr<GptShape> ReadShape(const JsonFields& config) {
  GptShape shape;
  DIMMER_ASSIGN_OR_RETURN(shape.layers, config.Int("n_layer", 1, 1 << 10));
  DIMMER_ASSIGN_OR_RETURN(shape.heads, config.Int("n_head", 1, 1 << 12));
  DIMMER_ASSIGN_OR_RETURN(shape.d, config.Int("n_embd", 1, 1 << 16));
  DIMMER_ASSIGN_OR_RETURN(shape.vocab, config.Int("vocab_size", 1, 1 << 22));
  DIMMER_ASSIGN_OR_RETURN(shape.context, config.Int("block_size", 1, 1 << 22));
  if (shape.d % shape.heads != 0) {
    return absl::InvalidArgumentError(fmt::format("{}: n_embd: found {}, expected a multiple of {}",
                                                  config.where(), shape.d, shape.heads));
  }
  return shape;
}

// [out, in] to [in, out].
std::vector<float> Transpose(const std::vector<float>& weights, size_t out, size_t in) {
  std::vector<float> transposed(weights.size());
  for (size_t o = 0; o < out; ++o) {
    for (size_t i = 0; i < in; ++i) transposed[i * out + o] = weights[o * in + i];
  }
  return transposed;
}

class Importer {
 public:
  Importer(const SafetensorsFile& file, GptShape shape) : file_(file), shape_(shape) {}

  absl::Status Run() {
    const int64_t d = shape_.d;
    DIMMER_RETURN_IF_ERROR(FindHiddenWidth());
    DIMMER_RETURN_IF_ERROR(Copy("transformer.wte.weight", {shape_.vocab, d}));
    DIMMER_RETURN_IF_ERROR(Copy("transformer.wpe.weight", {shape_.context, d}));
    for (int64_t layer = 0; layer < shape_.layers; ++layer) {
      const std::string prefix = fmt::format("transformer.h.{}.", layer);
      DIMMER_RETURN_IF_ERROR(Norm(prefix + "ln_1"));
      DIMMER_RETURN_IF_ERROR(Linear(prefix + "attn.c_attn", 3 * d, d));
      DIMMER_RETURN_IF_ERROR(Linear(prefix + "attn.c_proj", d, d));
      DIMMER_RETURN_IF_ERROR(Norm(prefix + "ln_2"));
      DIMMER_RETURN_IF_ERROR(Linear(prefix + "mlp.c_fc", shape_.d_ff, d));
      DIMMER_RETURN_IF_ERROR(Linear(prefix + "mlp.c_proj", d, shape_.d_ff));
      known_.insert({prefix + "attn.bias", prefix + "attn.masked_bias"});  // masks, no weights
    }
    DIMMER_RETURN_IF_ERROR(Norm("transformer.ln_f"));
    if (has_head()) DIMMER_RETURN_IF_ERROR(Copy("lm_head.weight", {shape_.vocab, d}));
    return CheckAllKnown();
  }

  bool has_head() const { return file_.Find("lm_head.weight") != nullptr; }
  const GptShape& shape() const { return shape_; }
  const std::vector<TensorToWrite>& tensors() const { return tensors_; }

 private:
  absl::Status FindHiddenWidth() {
    const TensorView* hidden = file_.Find("transformer.h.0.mlp.c_fc.weight");
    if (hidden == nullptr || hidden->shape.size() != 2 || hidden->shape[0] < 1) {
      return absl::InvalidArgumentError(
          fmt::format("{}: transformer.h.0.mlp.c_fc.weight: found {}, expected [d_ff, {}]",
                      file_.path(), hidden ? ShapeString(hidden->shape) : "nothing", shape_.d));
    }
    shape_.d_ff = hidden->shape[0];
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<float>> Read(const std::string& name,
                                          const std::vector<int64_t>& shape) {
    const TensorView* tensor = file_.Find(name);
    if (tensor == nullptr || tensor->shape != shape) {
      return absl::InvalidArgumentError(
          fmt::format("{}: {}: found {}, expected {}", file_.path(), name,
                      tensor ? ShapeString(tensor->shape) : "nothing", ShapeString(shape)));
    }
    if (!IsFloat(tensor->dtype)) {
      return absl::InvalidArgumentError(fmt::format("{}: {}: found {}, expected F32, F16 or BF16",
                                                    file_.path(), name, DTypeName(tensor->dtype)));
    }
    known_.insert(name);
    std::vector<float> values(static_cast<size_t>(tensor->elements()));
    DIMMER_RETURN_IF_ERROR(ReadFloats(*tensor, values));
    return values;
  }

  void Put(const std::string& name, std::vector<int64_t> shape, std::vector<float> values) {
    values_.push_back(std::move(values));
    tensors_.push_back(
        {.name = name, .dtype = DType::kF32, .shape = std::move(shape), .values = values_.back()});
  }

  absl::Status Copy(const std::string& name, const std::vector<int64_t>& shape) {
    DIMMER_ASSIGN_OR_RETURN(std::vector<float> values, Read(name, shape));
    Put(name, shape, std::move(values));
    return absl::OkStatus();
  }

  absl::Status CopyOrZero(const std::string& name, int64_t size) {
    if (file_.Find(name) != nullptr) return Copy(name, {size});
    Put(name, {size}, std::vector<float>(static_cast<size_t>(size)));
    return absl::OkStatus();
  }

  absl::Status Norm(const std::string& name) {
    DIMMER_RETURN_IF_ERROR(Copy(name + ".weight", {shape_.d}));
    return CopyOrZero(name + ".bias", shape_.d);
  }

  absl::Status Linear(const std::string& name, int64_t out, int64_t in) {
    DIMMER_ASSIGN_OR_RETURN(const std::vector<float> values, Read(name + ".weight", {out, in}));
    Put(name + ".weight", {in, out},
        Transpose(values, static_cast<size_t>(out), static_cast<size_t>(in)));
    return CopyOrZero(name + ".bias", out);
  }

  absl::Status CheckAllKnown() const {
    for (const auto& [name, tensor] : file_.tensors()) {
      if (known_.contains(name)) continue;
      return absl::InvalidArgumentError(
          fmt::format("{}: {}: found a tensor {}, expected none of this name", file_.path(), name,
                      ShapeString(tensor.shape)));
    }
    return absl::OkStatus();
  }

  const SafetensorsFile& file_;
  GptShape shape_;
  std::set<std::string> known_;
  std::list<std::vector<float>> values_;
  std::vector<TensorToWrite> tensors_;
};

absl::StatusOr<nlohmann::json> ConfigOf(const JsonFields& from, const GptShape& shape,
                                        bool has_head) {
  nlohmann::json config = {{"architectures", nlohmann::json::array({"GPT2LMHeadModel"})},
                           {"model_type", "gpt2"},
                           {"n_layer", shape.layers},
                           {"n_head", shape.heads},
                           {"n_embd", shape.d},
                           {"n_inner", shape.d_ff},
                           {"n_positions", shape.context},
                           {"n_ctx", shape.context},
                           {"vocab_size", shape.vocab},
                           {"tie_word_embeddings", !has_head},
                           {"bos_token_id", nullptr},
                           {"eos_token_id", nullptr},
                           {"torch_dtype", "float32"}};
  DIMMER_ASSIGN_OR_RETURN(config["activation_function"],
                          from.String("activation_function", "gelu_new"));
  DIMMER_ASSIGN_OR_RETURN(config["layer_norm_epsilon"],
                          from.Number("layer_norm_epsilon", 0, 1, 1e-5));
  for (const char* dropout : {"embd_pdrop", "resid_pdrop", "attn_pdrop"}) {
    DIMMER_ASSIGN_OR_RETURN(config[dropout], from.Number(dropout, 0, 1, 0.1));
  }
  return config;
}

}  // namespace

absl::Status ImportGpt(const std::string& from, const std::string& to) {
  const std::string config_path = from + "/config.json";
  DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(config_path));
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, config_path));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields config, JsonFields::Of(json, config_path));
  DIMMER_ASSIGN_OR_RETURN(const GptShape shape, ReadShape(config));
  DIMMER_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(from + "/model.safetensors"));
  Importer importer(*file, shape);
  DIMMER_RETURN_IF_ERROR(importer.Run());
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json imported,
                          ConfigOf(config, importer.shape(), importer.has_head()));
  return WriteNewFolder(to, [&](const std::string& folder) -> absl::Status {
    DIMMER_RETURN_IF_ERROR(WriteTextFile(folder + "/config.json", imported.dump(1) + "\n"));
    return WriteSafetensors(folder + "/model.safetensors", importer.tensors(), {{"format", "pt"}});
  });
}

}  // namespace dimmer
