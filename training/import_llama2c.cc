#include "training/import_llama2c.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <list>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/package/input_file.h"
#include "engine/package/json_fields.h"
#include "engine/package/safetensors.h"
#include "engine/text/llama2c_tokenizer.h"
#include "engine/util/status.h"
#include "training/new_folder.h"
#include "training/tokenizer_writer.h"

namespace dimmer {
namespace {

static_assert(std::endian::native == std::endian::little, "the file's numbers are little endian");

constexpr size_t kHeaderNumbers = 7;
constexpr int32_t kMagicOfLaterVersions = 0x616b3432;  // "ak42"
constexpr uint64_t kMaxBytes = uint64_t{64} << 30;

using Header = std::array<int32_t, kHeaderNumbers>;

absl::Status ReadFully(InputFile& file, const std::string& path, std::span<std::byte> buffer) {
  size_t filled = 0;
  while (filled < buffer.size()) {
    DIMMER_ASSIGN_OR_RETURN(const size_t count, file.Read(buffer.subspan(filled)));
    if (count == 0) {
      return absl::InvalidArgumentError(fmt::format("{}: found the end {} bytes early, expected {}",
                                                    path, buffer.size() - filled, file.size()));
    }
    filled += count;
  }
  return absl::OkStatus();
}

// The file's sizes and weights. The header is judged before memory is taken for the rest.
absl::Status ReadModel(const std::string& path, Llama2cShape& shape, std::vector<float>& weights) {
  DIMMER_ASSIGN_OR_RETURN(InputFile file, InputFile::Open(path));
  const uint64_t bytes = file.size();
  if (bytes < kHeaderNumbers * sizeof(float) || bytes > kMaxBytes || bytes % sizeof(float) != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {} bytes, expected a multiple of 4 from {} to {}", path, bytes,
                    kHeaderNumbers * sizeof(float), kMaxBytes));
  }
  Header header;
  DIMMER_RETURN_IF_ERROR(ReadFully(file, path, std::as_writable_bytes(std::span(header))));
  DIMMER_ASSIGN_OR_RETURN(shape, ReadLlama2cShape(header, bytes, path));
  weights.resize(bytes / sizeof(float) - kHeaderNumbers);
  return ReadFully(file, path, std::as_writable_bytes(std::span(weights)));
}

// Takes the file's weights one after another and names them as Hugging Face does. The tensors'
// values last as long as this and the weights.
class WeightList {
 public:
  WeightList(const Llama2cShape& shape, std::span<const float> weights)
      : shape_(shape), rest_(weights) {}
  WeightList(const WeightList&) = delete;
  WeightList& operator=(const WeightList&) = delete;

  std::vector<TensorToWrite> Tensors() {
    const Llama2cShape& s = shape_;
    Add("model.embed_tokens.weight", {s.vocab, s.d});
    AddPerLayer("input_layernorm", {s.d});
    AddPerLayer("self_attn.q_proj", {s.d, s.d}, s.heads);
    AddPerLayer("self_attn.k_proj", {s.kv_width(), s.d}, s.kv_heads);
    AddPerLayer("self_attn.v_proj", {s.kv_width(), s.d});
    AddPerLayer("self_attn.o_proj", {s.d, s.d});
    AddPerLayer("post_attention_layernorm", {s.d});
    AddPerLayer("mlp.gate_proj", {s.d_ff, s.d});  // w1
    AddPerLayer("mlp.down_proj", {s.d, s.d_ff});  // w2
    AddPerLayer("mlp.up_proj", {s.d_ff, s.d});    // w3
    Add("model.norm.weight", {s.d});
    Take(s.context * s.head_dim());  // cosines and sines of RoPE
    if (!s.shared_head) Add("lm_head.weight", {s.vocab, s.d});
    return std::move(tensors_);
  }

 private:
  std::span<const float> Take(uint64_t count) {
    const std::span<const float> taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }

  // `rotated_heads` > 0: rows that RoPE turns.
  void Add(std::string name, const std::vector<uint64_t>& shape, uint64_t rotated_heads = 0) {
    uint64_t count = 1;
    for (const uint64_t n : shape) count *= n;
    std::span<const float> values = Take(count);
    if (rotated_heads > 0) {
      permuted_.push_back(PermuteForRotateHalf(values, rotated_heads, shape_.head_dim(), shape_.d));
      values = permuted_.back();
    }
    tensors_.push_back({.name = std::move(name),
                        .dtype = DType::kF32,
                        .shape = std::vector<int64_t>(shape.begin(), shape.end()),
                        .values = values});
  }
  void AddPerLayer(const char* name, const std::vector<uint64_t>& shape,
                   uint64_t rotated_heads = 0) {
    for (uint64_t layer = 0; layer < shape_.layers; ++layer) {
      Add(fmt::format("model.layers.{}.{}.weight", layer, name), shape, rotated_heads);
    }
  }

  const Llama2cShape& shape_;
  std::span<const float> rest_;
  std::list<std::vector<float>> permuted_;
  std::vector<TensorToWrite> tensors_;
};

absl::Status CheckFinite(const std::vector<TensorToWrite>& tensors, const std::string& path) {
  for (const TensorToWrite& tensor : tensors) {
    for (size_t i = 0; i < tensor.values.size(); ++i) {
      if (std::isfinite(tensor.values[i])) continue;
      return absl::InvalidArgumentError(
          fmt::format("{}: {}: found {} at index {}, expected a finite number", path, tensor.name,
                      tensor.values[i], i));
    }
  }
  return absl::OkStatus();
}

nlohmann::json ConfigOf(const Llama2cShape& shape, const BpeOptions& tokenizer) {
  return {{"architectures", nlohmann::json::array({"LlamaForCausalLM"})},
          {"model_type", "llama"},
          {"hidden_size", shape.d},
          {"intermediate_size", shape.d_ff},
          {"num_hidden_layers", shape.layers},
          {"num_attention_heads", shape.heads},
          {"num_key_value_heads", shape.kv_heads},
          {"vocab_size", shape.vocab},
          {"max_position_embeddings", shape.context},
          {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"tie_word_embeddings", shape.shared_head},
          {"bos_token_id", *tokenizer.bos},
          {"eos_token_id", *tokenizer.eos},
          {"torch_dtype", "float32"}};
}

}  // namespace

uint64_t Llama2cShape::floats() const {
  const uint64_t attention = 2 * d * d + 2 * kv_width() * d;
  const uint64_t per_layer = attention + 3 * d * d_ff + 2 * d;
  return (shared_head ? 1 : 2) * vocab * d + layers * per_layer + d + context * head_dim();
}

absl::StatusOr<Llama2cShape> ReadLlama2cShape(std::span<const int32_t> header, uint64_t bytes,
                                              const std::string& path) {
  if (header.front() == kMagicOfLaterVersions) {
    return absl::UnimplementedError(fmt::format(
        "{}: found a llama2.c file of version 1 or later, expected version 0 (\"legacy\")", path));
  }
  struct Field {
    const char* name;
    uint64_t Llama2cShape::*member;
    int64_t max;
  };
  constexpr std::array<Field, kHeaderNumbers> kFields = {
      {{"dim", &Llama2cShape::d, 1 << 16},
       {"hidden_dim", &Llama2cShape::d_ff, 1 << 20},
       {"n_layers", &Llama2cShape::layers, 1 << 10},
       {"n_heads", &Llama2cShape::heads, 1 << 12},
       {"n_kv_heads", &Llama2cShape::kv_heads, 1 << 12},
       {"vocab_size", &Llama2cShape::vocab, 1 << 22},
       {"seq_len", &Llama2cShape::context, 1 << 22}}};
  Llama2cShape shape;
  for (size_t i = 0; i < kFields.size(); ++i) {
    const bool may_be_negative = kFields[i].member == &Llama2cShape::vocab;
    const int64_t found = header[i];
    const int64_t value = may_be_negative ? std::abs(found) : found;
    if (value < 1 || value > kFields[i].max) {
      return absl::InvalidArgumentError(fmt::format("{}: {}: found {}, expected 1 to {}", path,
                                                    kFields[i].name, found, kFields[i].max));
    }
    if (may_be_negative) shape.shared_head = found > 0;
    shape.*kFields[i].member = static_cast<uint64_t>(value);
  }
  if (shape.d % shape.heads != 0 || shape.head_dim() % 2 != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: dim: found {} for {} heads, expected heads of one even width", path,
                    shape.d, shape.heads));
  }
  if (shape.heads % shape.kv_heads != 0) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: n_kv_heads: found {}, expected a divisor of {}", path, shape.kv_heads, shape.heads));
  }
  const uint64_t expected = (kHeaderNumbers + shape.floats()) * sizeof(float);
  if (bytes != expected) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {} bytes, expected {} for these numbers", path, bytes, expected));
  }
  return shape;
}

std::vector<float> PermuteForRotateHalf(std::span<const float> weights, uint64_t heads,
                                        uint64_t head_dim, uint64_t in) {
  std::vector<float> permuted(weights.size());
  for (uint64_t row = 0; row < heads * head_dim; ++row) {
    const uint64_t head = row / head_dim, i = row % head_dim;
    const uint64_t half = head_dim / 2;
    const uint64_t from = head * head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
    std::copy_n(weights.begin() + static_cast<ptrdiff_t>(from * in), in,
                permuted.begin() + static_cast<ptrdiff_t>(row * in));
  }
  return permuted;
}

absl::Status ImportLlama2c(const std::string& model, const std::string& tokenizer,
                           const std::string& to) {
  Llama2cShape shape;
  std::vector<float> values;
  DIMMER_RETURN_IF_ERROR(ReadModel(model, shape, values));
  DIMMER_ASSIGN_OR_RETURN(const std::string bytes, ReadTextFile(tokenizer));
  DIMMER_ASSIGN_OR_RETURN(const BpeOptions vocab, ParseLlama2cTokenizer(bytes, tokenizer));
  if (vocab.tokens.size() != shape.vocab) {
    return absl::InvalidArgumentError(fmt::format("{}: found {} tokens, expected the {} of {}",
                                                  tokenizer, vocab.tokens.size(), shape.vocab,
                                                  model));
  }
  WeightList weights(shape, values);
  const std::vector<TensorToWrite> tensors = weights.Tensors();
  DIMMER_RETURN_IF_ERROR(CheckFinite(tensors, model));
  return WriteNewFolder(to, [&](const std::string& folder) -> absl::Status {
    DIMMER_RETURN_IF_ERROR(
        WriteTextFile(folder + "/config.json", ConfigOf(shape, vocab).dump(1) + "\n"));
    // llama2.c trains on stories that each begin with the start token, and ends a text at it.
    const nlohmann::json generation = {
        {"bos_token_id", *vocab.bos},
        {"eos_token_id", nlohmann::json::array({*vocab.eos, *vocab.bos})}};
    DIMMER_RETURN_IF_ERROR(
        WriteTextFile(folder + "/generation_config.json", generation.dump(1) + "\n"));
    DIMMER_RETURN_IF_ERROR(WriteLlamaTokenizer(folder, vocab));
    return WriteSafetensors(folder + "/model.safetensors", tensors, {{"format", "pt"}});
  });
}

}  // namespace dimmer
