#include "tests/models/test_packages.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "engine/package/json_fields.h"

namespace dimmer {

TempDirectory::TempDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "dimmer_test_XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) std::abort();
  path_ = pattern;
}

TempDirectory::~TempDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

nlohmann::json TestBert::Config() const {
  nlohmann::json config = {
      {"architectures", {labels > 0 ? "BertForSequenceClassification" : "BertModel"}},
      {"model_type", "bert"},
      {"vocab_size", vocab_size},
      {"hidden_size", hidden_size},
      {"num_hidden_layers", layers},
      {"num_attention_heads", heads},
      {"intermediate_size", intermediate_size},
      {"max_position_embeddings", max_positions},
      {"type_vocab_size", 2},
      {"layer_norm_eps", 1e-12},
      {"hidden_act", hidden_act},
      {"position_embedding_type", "absolute"}};
  for (uint32_t i = 0; i < labels; ++i) {
    config["id2label"][std::to_string(i)] = fmt::format("class {}", i);
    config["label2id"][fmt::format("class {}", i)] = i;
  }
  return config;
}

TestTensors TestBert::Weights() const {
  Drawer drawer(seed);
  TestTensors tensors;
  const int64_t d = hidden_size;
  const std::string bert = prefix ? "bert." : "";
  const float in_scale = 1.0f / std::sqrt(static_cast<float>(d));
  const auto linear = [&](const std::string& name, int64_t n, int64_t k, float scale) {
    tensors[name + ".weight"] = drawer.Draw({n, k}, scale);
    tensors[name + ".bias"] = drawer.Draw({n}, 0.1f);
  };
  const auto norm = [&](const std::string& name) {
    tensors[name + (old_norms ? ".gamma" : ".weight")] = drawer.Draw({d}, 0.1f, 1.0f);
    tensors[name + (old_norms ? ".beta" : ".bias")] = drawer.Draw({d}, 0.1f);
  };
  tensors[bert + "embeddings.word_embeddings.weight"] = drawer.Draw({vocab_size, d}, 0.5f);
  tensors[bert + "embeddings.position_embeddings.weight"] = drawer.Draw({max_positions, d}, 0.3f);
  tensors[bert + "embeddings.token_type_embeddings.weight"] = drawer.Draw({2, d}, 0.3f);
  norm(bert + "embeddings.LayerNorm");
  for (uint32_t l = 0; l < layers; ++l) {
    const std::string layer = fmt::format("{}encoder.layer.{}.", bert, l);
    for (const char* part : {"query", "key", "value"}) {
      linear(layer + "attention.self." + part, d, d, in_scale);
    }
    linear(layer + "attention.output.dense", d, d, in_scale);
    norm(layer + "attention.output.LayerNorm");
    linear(layer + "intermediate.dense", intermediate_size, d, in_scale);
    linear(layer + "output.dense", d, intermediate_size,
           1.0f / std::sqrt(static_cast<float>(intermediate_size)));
    norm(layer + "output.LayerNorm");
  }
  linear(bert + "pooler.dense", d, d, in_scale);
  if (labels > 0) linear("classifier", labels, d, in_scale);
  return tensors;
}

TestTensors TestBert::Routers() const {
  Drawer drawer(seed + 1000);
  TestTensors tensors;
  for (const MoeModuleSpec& module : Moe().modules) {
    tensors[RouterTensorName(module.layer, module.module, 1)] =
        drawer.Draw({router_width, hidden_size}, 0.3f);
    tensors[RouterTensorName(module.layer, module.module, 2)] =
        drawer.Draw({experts, router_width}, 0.3f);
  }
  return tensors;
}

MoeSpec TestBert::Moe() const {
  MoeSpec spec;
  for (uint32_t l = 0; l < layers; ++l) {
    spec.modules.push_back({l, Module::kFfn, experts, intermediate_size / experts, router_width});
  }
  spec.gate = gate;
  spec.calibration = calibration;
  spec.provenance = {{"command", "test"}};
  return spec;
}

void WriteTestBert(const TestBert& bert, const std::string& directory) {
  std::filesystem::create_directories(directory);
  CheckOk(WriteTextFile(directory + "/config.json", bert.Config().dump(2)));
  TestTensors weights = bert.Weights();
  if (bert.extra_tensors) {
    TestTensor ids{{1, bert.max_positions}, {}};
    for (uint32_t i = 0; i < bert.max_positions; ++i) ids.values.push_back(static_cast<float>(i));
    weights[std::string(bert.prefix ? "bert." : "") + "embeddings.position_ids"] = std::move(ids);
  }
  WriteTensors(directory + "/model.safetensors", weights, bert.dtype);
  if (bert.vocabulary) {
    std::string lines = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
    for (uint32_t i = 5; i < bert.vocab_size; ++i) {
      // a, b, ..., z, ##a, ..., ##z, then words.
      const auto letter = static_cast<char>('a' + (i - 5) % 26);
      if (i < 5 + 26) {
        lines += fmt::format("{}\n", letter);
      } else if (i < 5 + 52) {
        lines += fmt::format("##{}\n", letter);
      } else {
        lines += fmt::format("word{}\n", i);
      }
    }
    CheckOk(WriteTextFile(directory + "/vocab.txt", lines));
    CheckOk(WriteTextFile(directory + "/tokenizer_config.json", R"({"do_lower_case": true})"));
  }
  if (bert.experts == 0) return;
  WriteTensors(directory + "/routers.safetensors", bert.Routers(), bert.dtype);
  CheckOk(WriteMoeSpec(directory, bert.Moe()));
}

void WriteTestRepository(const TestBert& bert, const std::string& root, const std::string& model) {
  WriteTestBert(bert, root + "/" + model + "/1");
}

std::vector<int32_t> RandomIds(const TestBert& bert, size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % bert.vocab_size);
  return ids;
}

}  // namespace dimmer
