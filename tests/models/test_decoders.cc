#include "tests/models/test_decoders.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <random>
#include <utility>

#include "engine/package/json_fields.h"

namespace dimmer {
namespace {

float ScaleFor(int64_t inputs) { return 1.0f / std::sqrt(static_cast<float>(inputs)); }

TestTensor Transposed(const TestTensor& tensor) {
  const auto rows = static_cast<size_t>(tensor.shape[0]);
  const auto columns = static_cast<size_t>(tensor.shape[1]);
  TestTensor turned{{tensor.shape[1], tensor.shape[0]}, std::vector<float>(tensor.values.size())};
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) {
      turned.values[c * rows + r] = tensor.values[r * columns + c];
    }
  }
  return turned;
}

TestTensors Gpt2Weights(const TestDecoder& decoder) {
  Drawer drawer(decoder.seed);
  TestTensors tensors;
  const int64_t d = decoder.width;
  const std::string prefix = decoder.prefix ? "transformer." : "";
  const auto norm = [&](const std::string& name) {
    tensors[name + (decoder.old_names ? ".gamma" : ".weight")] = drawer.Draw({d}, 0.1f, 1.0f);
    tensors[name + (decoder.old_names ? ".beta" : ".bias")] = drawer.Draw({d}, 0.1f);
  };
  const auto linear = [&](const std::string& name, int64_t n, int64_t k) {
    TestTensor weight = drawer.Draw({n, k}, ScaleFor(k));
    tensors[name + ".weight"] = decoder.in_out ? Transposed(weight) : std::move(weight);
    if (decoder.biases) tensors[name + ".bias"] = drawer.Draw({n}, 0.1f);
  };
  tensors[prefix + "wte.weight"] = drawer.Draw({decoder.vocab_size, d}, 0.5f);
  tensors[prefix + "wpe.weight"] = drawer.Draw({decoder.max_positions, d}, 0.3f);
  for (uint32_t l = 0; l < decoder.layers; ++l) {
    const std::string block = fmt::format("{}h.{}.", prefix, l);
    norm(block + "ln_1");
    linear(block + "attn.c_attn", 3 * d, d);
    linear(block + "attn.c_proj", d, d);
    norm(block + "ln_2");
    linear(block + "mlp.c_fc", decoder.hidden, d);
    linear(block + "mlp.c_proj", d, decoder.hidden);
    if (decoder.old_names) tensors[block + "attn.bias"] = drawer.Draw({1, 1, 4, 4}, 0.5f);
  }
  norm(prefix + "ln_f");
  if (!decoder.tied_head) tensors["lm_head.weight"] = drawer.Draw({decoder.vocab_size, d}, 0.5f);
  return tensors;
}

TestTensors LlamaWeights(const TestDecoder& decoder) {
  Drawer drawer(decoder.seed);
  TestTensors tensors;
  const int64_t d = decoder.width;
  const int64_t head_dim = d / decoder.heads;
  const auto norm = [&](const std::string& name) {
    tensors[name + ".weight"] = drawer.Draw({d}, 0.1f, 1.0f);
  };
  const auto linear = [&](const std::string& name, int64_t n, int64_t k) {
    tensors[name + ".weight"] = drawer.Draw({n, k}, ScaleFor(k));
  };
  tensors["model.embed_tokens.weight"] = drawer.Draw({decoder.vocab_size, d}, 0.5f);
  for (uint32_t l = 0; l < decoder.layers; ++l) {
    const std::string layer = fmt::format("model.layers.{}.", l);
    norm(layer + "input_layernorm");
    linear(layer + "self_attn.q_proj", d, d);
    linear(layer + "self_attn.k_proj", decoder.kv_heads * head_dim, d);
    linear(layer + "self_attn.v_proj", decoder.kv_heads * head_dim, d);
    linear(layer + "self_attn.o_proj", d, d);
    norm(layer + "post_attention_layernorm");
    linear(layer + "mlp.gate_proj", decoder.hidden, d);
    linear(layer + "mlp.up_proj", decoder.hidden, d);
    linear(layer + "mlp.down_proj", d, decoder.hidden);
  }
  norm("model.norm");
  if (!decoder.tied_head) tensors["lm_head.weight"] = drawer.Draw({decoder.vocab_size, d}, 0.5f);
  return tensors;
}

}  // namespace

TestDecoder TestGpt2() { return {}; }

TestDecoder TestLlama() {
  TestDecoder decoder;
  decoder.family = TestDecoder::Family::kLlama;
  return decoder;
}

TestDecoder TestDecoder::Converted() const {
  TestDecoder converted = *this;
  converted.experts = 6;
  return converted;
}

nlohmann::json TestDecoder::Config() const {
  if (family == Family::kGpt2) {
    return {{"architectures", {"GPT2LMHeadModel"}},
            {"model_type", "gpt2"},
            {"vocab_size", vocab_size},
            {"n_embd", width},
            {"n_layer", layers},
            {"n_head", heads},
            {"n_inner", hidden},
            {"n_positions", max_positions},
            {"activation_function", "gelu_new"},
            {"layer_norm_epsilon", 1e-5},
            {"tie_word_embeddings", tied_head},
            {"eos_token_id", end_ids}};
  }
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", vocab_size},
          {"hidden_size", width},
          {"num_hidden_layers", layers},
          {"num_attention_heads", heads},
          {"num_key_value_heads", kv_heads},
          {"intermediate_size", hidden},
          {"max_position_embeddings", max_positions},
          {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-6},
          {"tie_word_embeddings", tied_head},
          {"eos_token_id", end_ids}};
}

TestTensors TestDecoder::Weights() const {
  return family == Family::kGpt2 ? Gpt2Weights(*this) : LlamaWeights(*this);
}

TestTensors TestDecoder::Routers() const {
  Drawer drawer(seed + 1000);
  TestTensors tensors;
  for (const MoeModuleSpec& module : Moe().modules) {
    tensors[RouterTensorName(module.layer, module.module, 1)] =
        drawer.Draw({router_width, width}, 0.3f);
    tensors[RouterTensorName(module.layer, module.module, 2)] =
        drawer.Draw({experts, router_width}, 0.3f);
  }
  return tensors;
}

MoeSpec TestDecoder::Moe() const {
  MoeSpec spec;
  for (uint32_t l = 0; l < layers; ++l) {
    spec.modules.push_back({l, Module::kFfn, experts, hidden / experts, router_width});
  }
  spec.gate = gate;
  spec.provenance = {{"command", "test"}};
  return spec;
}

void WriteTestDecoder(const TestDecoder& decoder, const std::string& directory) {
  std::filesystem::create_directories(directory);
  CheckOk(WriteTextFile(directory + "/config.json", decoder.Config().dump(2)));
  WriteTensors(directory + "/model.safetensors", decoder.Weights(), decoder.dtype);
  if (decoder.experts == 0) return;
  WriteTensors(directory + "/routers.safetensors", decoder.Routers(), decoder.dtype);
  CheckOk(WriteMoeSpec(directory, decoder.Moe()));
}

std::vector<int32_t> RandomIds(const TestDecoder& decoder, size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % decoder.vocab_size);
  return ids;
}

}  // namespace dimmer
