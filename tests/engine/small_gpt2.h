// A small converted GPT-2 with random weights and a tokenizer of single bytes.
#ifndef DIMMER_TESTS_ENGINE_SMALL_GPT2_H_
#define DIMMER_TESTS_ENGINE_SMALL_GPT2_H_

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/text/byte_alphabet.h"

namespace dimmer {

struct SmallGpt2 {
  uint32_t context = 2048;
  uint32_t layers = 2;
  int64_t width = 32;
  int64_t hidden = 256;
  uint32_t experts = 8;  // 0: a plain checkpoint
  uint32_t seed = 1;
  int32_t end_id = 256;  // -1: no token ends a text

  void Write(const std::string& directory) const {
    std::filesystem::create_directories(directory);
    const nlohmann::json config = {{"architectures", {"GPT2LMHeadModel"}},
                                   {"model_type", "gpt2"},
                                   {"vocab_size", 257},
                                   {"n_embd", width},
                                   {"n_layer", layers},
                                   {"n_head", 4},
                                   {"n_inner", hidden},
                                   {"n_positions", context},
                                   {"eos_token_id", end_id}};
    Check(WriteTextFile(directory + "/config.json", config.dump()));
    WriteTokenizer(directory);
    std::mt19937 random(seed);
    Tensors tensors;
    const auto add = [&](const std::string& name, std::vector<int64_t> shape, double scale,
                         double center = 0) {
      size_t count = 1;
      for (const int64_t size : shape) count *= size_t(size);
      Tensor tensor{name, std::move(shape), std::vector<float>(count)};
      for (float& value : tensor.values) {
        value = float(center + scale * (double(random()) / double(1u << 31) - 1));
      }
      tensors.push_back(std::move(tensor));
    };
    const double scale = 2 / std::sqrt(double(width));
    add("transformer.wte.weight", {257, width}, 1);
    add("transformer.wpe.weight", {context, width}, 0.3);
    const auto norm = [&](const std::string& name) {
      add(name + ".weight", {width}, 0.1, 1);
      add(name + ".bias", {width}, 0.1);
    };
    const auto linear = [&](const std::string& name, int64_t in, int64_t out) {
      add(name + ".weight", {in, out}, scale);
      add(name + ".bias", {out}, 0.1);
    };
    for (uint32_t l = 0; l < layers; ++l) {
      const std::string block = fmt::format("transformer.h.{}.", l);
      norm(block + "ln_1");
      linear(block + "attn.c_attn", width, 3 * width);
      linear(block + "attn.c_proj", width, width);
      norm(block + "ln_2");
      linear(block + "mlp.c_fc", width, hidden);
      linear(block + "mlp.c_proj", hidden, width);
    }
    norm("transformer.ln_f");
    Save(tensors, directory + "/model.safetensors");
    if (experts == 0) return;
    tensors.clear();
    MoeSpec spec;
    for (uint32_t l = 0; l < layers; ++l) {
      spec.modules.push_back({l, Module::kFfn, experts, uint32_t(hidden) / experts, 4});
      add(RouterTensorName(l, Module::kFfn, 1), {4, width}, 1);
      add(RouterTensorName(l, Module::kFfn, 2), {experts, 4}, 1);
    }
    spec.provenance = {{"command", "test"}};
    Save(tensors, directory + "/routers.safetensors");
    Check(WriteMoeSpec(directory, spec));
  }

 private:
  struct Tensor {
    std::string name;
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  using Tensors = std::vector<Tensor>;

  static void Check(const absl::Status& status) {
    if (status.ok()) return;
    std::cerr << status << std::endl;
    std::abort();
  }
  static void Save(const Tensors& tensors, const std::string& path) {
    std::vector<TensorToWrite> list;
    for (const Tensor& tensor : tensors) {
      list.push_back({tensor.name, DType::kF32, tensor.shape, tensor.values});
    }
    Check(WriteSafetensors(path, list, {{"format", "pt"}}));
  }
  static void WriteTokenizer(const std::string& directory) {
    nlohmann::json vocabulary = {{"<|endoftext|>", 256}};
    for (int byte = 0; byte < 256; ++byte) {
      vocabulary[BytesToLetters(std::string(1, char(byte)))] = byte;
    }
    Check(WriteTextFile(directory + "/vocab.json", vocabulary.dump()));
    Check(WriteTextFile(directory + "/merges.txt", "#version: 0.2\n"));
  }
};

}  // namespace dimmer

#endif  // DIMMER_TESTS_ENGINE_SMALL_GPT2_H_
