// What decoder packages may look like, and which are refused with what words.
#include <gmock/gmock.h>

#include <fstream>
#include <functional>

#include "engine/package/json_fields.h"
#include "tests/models/decoder_runner.h"

namespace dimmer {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using Family = TestDecoder::Family;

// Greedy text and log-probabilities of a prompt that spans two chunks.
Answer Sample(const TestDecoder& decoder) {
  return RunCall(*Load(decoder), {.ids = RandomIds(decoder, 70, 3), .max_new_tokens = 6});
}

absl::Status LoadStatus(const TestDecoder& decoder, const json& patch,
                        const std::function<void(TestTensors&)>& edit = nullptr,
                        const std::function<void(MoeSpec&)>& edit_moe = nullptr) {
  const TempDirectory directory;
  WriteTestDecoder(decoder, directory.path());
  if (edit) {
    TestTensors weights = decoder.Weights();
    edit(weights);
    WriteTensors(directory.path() + "/model.safetensors", weights, decoder.dtype);
  }
  absl::StatusOr<Package> package = Package::Open(directory.path());
  if (!package.ok()) return package.status();
  // Not merge_patch, for which null means to erase.
  for (const auto& [key, value] : patch.items()) package->config[key] = value;
  if (edit_moe) edit_moe(*package->moe);
  return LoadModel(*package).status();
}

TEST(Gpt2, DescribesItself) {
  TestDecoder decoder = TestGpt2();
  decoder.end_ids = json::array({3, 70, 5});  // 70 is not in the vocabulary
  const auto model = Load(decoder);
  const ModelInfo& info = model->info();
  EXPECT_EQ(info.architecture, "GPT2LMHeadModel");
  EXPECT_EQ(info.tasks, (std::vector<Task>{Task::kGeneration, Task::kScoring}));
  EXPECT_EQ(info.max_tokens, 300u);
  EXPECT_EQ(info.kv.layers, 2u);
  EXPECT_EQ(info.kv.heads, 4u);
  EXPECT_EQ(info.kv.head_dim, 6u);
  EXPECT_EQ(info.end_ids, (std::vector<int32_t>{3, 5}));
  EXPECT_EQ(info.dtype, "F16");
  EXPECT_FALSE(info.converted);
  EXPECT_TRUE(Load(decoder.Converted())->info().converted);
}

TEST(Llama, DescribesItself) {
  const auto model = Load(TestLlama());
  EXPECT_EQ(model->info().architecture, "LlamaForCausalLM");
  EXPECT_EQ(model->info().kv.heads, 2u);
  EXPECT_EQ(model->info().kv.head_dim, 6u);
  EXPECT_TRUE(model->info().end_ids.empty());
}

TEST(Decoders, CountParametersAsTheFileDoes) {
  for (TestDecoder decoder : {TestGpt2(), TestLlama()}) {
    for (bool tied : {false, true}) {
      decoder.tied_head = tied;
      uint64_t count = 0;
      for (const auto& [name, tensor] : decoder.Weights()) count += tensor.values.size();
      EXPECT_EQ(Load(decoder)->info().parameters, count);
    }
  }
}

// An absent eos_token_id is the family's own; null is none.
TEST(Decoders, EndOfTextIds) {
  TestDecoder decoder = TestLlama();
  const TempDirectory directory;
  WriteTestDecoder(decoder, directory.path());
  auto package = Package::Open(directory.path());
  EXPECT_TRUE((*LoadModel(*package))->info().end_ids.empty());
  package->config.erase("eos_token_id");
  EXPECT_EQ((*LoadModel(*package))->info().end_ids, std::vector<int32_t>{2});
  package->config["eos_token_id"] = 60;
  EXPECT_EQ((*LoadModel(*package))->info().end_ids, std::vector<int32_t>{60});
}

TEST(Gpt2, ReadsEveryWayOfWriting) {
  TestDecoder decoder = TestGpt2();
  const Answer want = Sample(decoder);
  decoder.in_out = false;
  EXPECT_EQ(Sample(decoder), want);
  decoder.prefix = false;
  EXPECT_EQ(Sample(decoder), want);
  decoder.in_out = true;
  EXPECT_EQ(Sample(decoder), want);
  decoder.dtype = DType::kF32;
  EXPECT_EQ(Sample(decoder), want);
}

TEST(Gpt2, ReadsTheNamesOfOldFiles) {
  TestDecoder decoder = TestGpt2();
  decoder.layers = 1;  // the masks are drawn last
  decoder.old_names = true;
  const absl::Status status = LoadStatus(decoder, json::object());
  EXPECT_TRUE(status.ok()) << status;
}

// As many files of bare heads do: what is missing is zero, and the head is the embedding.
TEST(Gpt2, MissingBiasesAreZeroAndAMissingHeadIsTied) {
  TestDecoder with = TestGpt2();
  with.biases = false;
  const Answer want = Sample(with);
  const TempDirectory directory;
  WriteTestDecoder(with, directory.path());
  TestTensors weights = with.Weights();
  for (const auto& [name, tensor] : with.Weights()) {
    if (tensor.shape.size() != 2 || name.find("h.") == std::string::npos) continue;
    const std::string layer = name.substr(0, name.rfind('.'));
    weights[layer + ".bias"] = {{tensor.shape[1]}, std::vector<float>(tensor.shape[1])};
  }
  ASSERT_EQ(weights.size(), with.Weights().size() + 8);
  WriteTensors(directory.path() + "/model.safetensors", weights, with.dtype);
  json config = with.Config();
  config["tie_word_embeddings"] = false;  // but there is no lm_head.weight
  CheckOk(WriteTextFile(directory.path() + "/config.json", config.dump()));
  EXPECT_EQ(
      RunCall(*LoadFrom(directory.path()), {.ids = RandomIds(with, 70, 3), .max_new_tokens = 6}),
      want);
}

TEST(Decoders, AnOwnHeadDiffersFromATiedOne) {
  for (TestDecoder decoder : {TestGpt2(), TestLlama()}) {
    const Answer tied = Sample(decoder);
    decoder.tied_head = false;
    EXPECT_NE(Sample(decoder).logprobs, tied.logprobs);
  }
}

struct Refusal {
  json patch;
  std::vector<std::string> words;  // all of them are in the message
};

void ExpectRefused(const TestDecoder& decoder, const std::vector<Refusal>& cases) {
  EXPECT_TRUE(LoadStatus(decoder, json::object()).ok());
  for (const Refusal& c : cases) {
    const absl::Status status = LoadStatus(decoder, c.patch);
    EXPECT_FALSE(status.ok()) << c.patch;
    for (const std::string& word : c.words) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(word)) << c.patch;
    }
  }
}

TEST(Gpt2, RefusesConfigsThatDoNotFit) {
  const std::string file = "/config.json: ", weights = "/model.safetensors: tensor ";
  ExpectRefused(
      TestGpt2(),
      {{{{"add_cross_attention", true}}, {file + "add_cross_attention", "found true"}},
       {{{"scale_attn_weights", false}}, {"scale_attn_weights", "expected true"}},
       {{{"scale_attn_by_inverse_layer_idx", true}}, {"scale_attn_by_inverse_layer_idx"}},
       {{{"activation_function", "mish"}}, {file + "activation_function", "\"mish\"", "gelu_new"}},
       {{{"n_head", 5}}, {file + "n_head: found 5, expected a divisor of n_embd 24"}},
       {{{"n_head", 0}}, {"n_head", "found 0"}},
       {{{"n_embd", 1000000000}}, {"n_embd", "found 1000000000", "32768"}},
       {{{"n_embd", 28}}, {weights + "transformer.wte.weight", "[61, 24]", "[61, 28]"}},
       {{{"n_embd", "24"}}, {"n_embd"}},
       {{{"n_layer", 3}}, {"transformer.h.2.ln_1.weight"}},
       {{{"n_layer", 1000000000}}, {"n_layer", "512"}},
       {{{"n_inner", 47}}, {"transformer.h.0.mlp.c_fc.weight", "[24, 48]", "[24, 47]"}},
       {{{"n_inner", nullptr}}, {"c_fc.weight", "[24, 48]", "[24, 96]"}},
       {{{"vocab_size", 62}}, {"wte.weight", "[61, 24]", "[62, 24]"}},
       {{{"vocab_size", 1 << 30}}, {"vocab_size", "found 1073741824"}},
       {{{"vocab_size", -1}}, {"vocab_size", "found -1"}},
       {{{"n_positions", 512}}, {"transformer.wpe.weight", "[300, 24]", "[512, 24]"}},
       {{{"n_positions", 1 << 30}}, {"n_positions", "found 1073741824"}},
       {{{"layer_norm_epsilon", -1}}, {"layer_norm_epsilon"}},
       {{{"tie_word_embeddings", "no"}}, {"tie_word_embeddings"}},
       {{{"eos_token_id", "end"}}, {"eos_token_id"}}});
}

TEST(Llama, RefusesConfigsThatDoNotFit) {
  const std::string file = "/config.json: ", weights = "/model.safetensors: tensor ";
  ExpectRefused(TestLlama(),
                {{{{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}},
                  {"config.json: rope_scaling: type: found \"linear\", expected \"default\""}},
                 {{{"rope_parameters", {{"rope_type", "llama3"}, {"factor", 8}}}},
                  {"rope_parameters", "rope_type: found \"llama3\""}},
                 {{{"rope_parameters", {{"rope_theta", -1}}}}, {"rope_parameters", "rope_theta"}},
                 {{{"partial_rotary_factor", 0.5}}, {"partial_rotary_factor: found 0.5"}},
                 {{{"mlp_bias", true}}, {"mlp_bias: found true, expected false"}},
                 {{{"attention_bias", true}}, {"layers.0.self_attn.q_proj.bias"}},
                 {{{"tie_word_embeddings", false}}, {"lm_head.weight"}},
                 {{{"num_attention_heads", 5}}, {file + "num_key_value_heads: found 2", "heads 5"}},
                 {{{"num_attention_heads", 10}},
                  {file + "num_attention_heads: found 10, expected a divisor of hidden_size 24"}},
                 {{{"num_key_value_heads", 3}}, {file + "num_key_value_heads: found 3", "heads 4"}},
                 {{{"num_key_value_heads", 4}},
                  {weights + "model.layers.0.self_attn.k_proj.weight", "[12, 24]", "[24, 24]"}},
                 {{{"num_attention_heads", 8}, {"num_key_value_heads", 8}},
                  {file + "head_dim: found 3, expected an even number"}},
                 {{{"head_dim", 7}}, {file + "head_dim: found 7, expected an even number"}},
                 {{{"head_dim", 8}}, {"self_attn.q_proj.weight", "[24, 24]", "[32, 24]"}},
                 {{{"head_dim", 1 << 30}}, {"head_dim", "found 1073741824"}},
                 {{{"hidden_size", 1000000000}}, {"hidden_size", "found 1000000000", "32768"}},
                 {{{"hidden_size", 32}}, {"model.embed_tokens.weight", "[61, 24]", "[61, 32]"}},
                 {{{"num_hidden_layers", 3}}, {"model.layers.2.input_layernorm.weight"}},
                 {{{"intermediate_size", 64}}, {"mlp.gate_proj.weight", "[48, 24]", "[64, 24]"}},
                 {{{"vocab_size", 60}}, {"embed_tokens.weight", "[61, 24]", "[60, 24]"}},
                 {{{"max_position_embeddings", 1 << 30}}, {"max_position_embeddings"}},
                 {{{"rope_theta", 0}}, {"rope_theta"}},
                 {{{"rms_norm_eps", "small"}}, {"rms_norm_eps"}},
                 {{{"hidden_act", "relu6"}}, {"hidden_act", "\"relu6\"", "silu"}}});
}

// Where versions of `transformers` keep the base of the frequencies.
TEST(Llama, ReadsTheRotaryBaseOfOldAndNewFiles) {
  TestDecoder llama = TestLlama();
  const auto answer = [&](const json& patch) {
    const TempDirectory directory;
    WriteTestDecoder(llama, directory.path());
    json config = llama.Config();
    config.update(patch);
    CheckOk(WriteTextFile(directory.path() + "/config.json", config.dump()));
    return RunCall(*LoadFrom(directory.path()),
                   {.ids = RandomIds(llama, 70, 3), .max_new_tokens = 6});
  };
  const Answer usual = answer({{"rope_theta", 10000}});
  const Answer large = answer({{"rope_theta", 500000}});
  EXPECT_NE(usual.logprobs, large.logprobs);
  EXPECT_EQ(answer({{"rope_scaling", {{"rope_type", "default"}}}, {"rope_theta", 500000}}), large);
  EXPECT_EQ(answer({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 500000}}}}),
            large);
}

// Attention may have biases, and config.json says so.
TEST(Llama, TakesTheBiasesThatItsConfigAnnounces) {
  const auto add = [](TestTensors& tensors) {
    for (const auto& [name, tensor] : TestTensors(tensors)) {
      if (!name.ends_with("_proj.weight") || name.find("self_attn") == std::string::npos) continue;
      const int64_t rows = tensor.shape[0];
      tensors[name.substr(0, name.size() - 6) + "bias"] = {
          {rows}, std::vector<float>(static_cast<size_t>(rows), 0.5f)};
    }
  };
  const absl::Status announced = LoadStatus(TestLlama(), {{"attention_bias", true}}, add);
  EXPECT_TRUE(announced.ok()) << announced;
  const absl::Status silent = LoadStatus(TestLlama(), json::object(), add);
  EXPECT_EQ(silent.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(silent.message()),
              AllOf(HasSubstr("self_attn.k_proj.bias"), HasSubstr("attention_bias false")));
  const absl::Status ffn = LoadStatus(TestLlama(), json::object(), [](TestTensors& tensors) {
    tensors["model.layers.1.mlp.up_proj.bias"] = {{48}, std::vector<float>(48)};
  });
  EXPECT_THAT(std::string(ffn.message()), HasSubstr("layers.1.mlp.up_proj.bias"));
}

TEST(Decoders, RefuseMissingAndMisshapenTensors) {
  const std::map<Family, std::vector<std::string>> kNames = {
      {Family::kGpt2,
       {"transformer.wpe.weight", "transformer.h.1.ln_2.bias", "transformer.h.0.attn.c_proj.weight",
        "transformer.h.1.mlp.c_proj.weight", "transformer.ln_f.weight"}},
      {Family::kLlama,
       {"model.embed_tokens.weight", "model.layers.1.self_attn.v_proj.weight",
        "model.layers.0.self_attn.o_proj.weight", "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.mlp.down_proj.weight", "model.norm.weight"}}};
  for (const auto& [family, names] : kNames) {
    TestDecoder decoder;
    decoder.family = family;
    for (const std::string& name : names) {
      absl::Status status =
          LoadStatus(decoder, json::object(), [&](TestTensors& t) { t.erase(name); });
      EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
      EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("safetensors"), HasSubstr(name)));
      status = LoadStatus(decoder, json::object(),
                          [&](TestTensors& t) { t.at(name).shape.push_back(1); });
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_THAT(std::string(status.message()),
                  AllOf(HasSubstr("model.safetensors"), HasSubstr(name), HasSubstr("found"),
                        HasSubstr("expected"), HasSubstr(", 1]")));
    }
  }
  // A bias may be missing; one of another size may not be there.
  const absl::Status status = LoadStatus(TestGpt2(), json::object(), [](TestTensors& t) {
    t["transformer.h.1.mlp.c_fc.bias"] = {{47}, std::vector<float>(47)};
  });
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("transformer.h.1.mlp.c_fc.bias"),
                                                   HasSubstr("[47]"), HasSubstr("[48]")));
}

// Overwrites one element of a tensor in its file; the writer itself refuses such values.
void PatchElement(const std::string& path, const std::string& name, size_t index,
                  const std::string& bytes) {
  const auto file = SafetensorsFile::Open(path);
  const TensorView* tensor = (*file)->Find(name);
  ASSERT_NE(tensor, nullptr) << name;
  std::string content = *ReadTextFile(path);
  const std::string_view data(reinterpret_cast<const char*>(tensor->data.data()),
                              tensor->data.size());
  const size_t at = content.find(data);  // random weights: nowhere else
  content.replace(at + index * bytes.size(), bytes.size(), bytes);
  std::ofstream(path, std::ios::binary) << content;
}

TEST(Decoders, RefuseNonFiniteWeightsByTensorAndIndex) {
  const std::map<Family, std::vector<std::string>> kNames = {
      {Family::kGpt2,
       {"transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.attn.c_attn.weight",
        "transformer.h.1.mlp.c_proj.weight", "transformer.h.1.mlp.c_fc.bias",
        "transformer.ln_f.bias", "lm_head.weight"}},
      {Family::kLlama,
       {"model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight",
        "model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"}}};
  const std::string kNan("\x00\x7e", 2), kInfinity("\x00\xfc", 2);
  for (const auto& [family, names] : kNames) {
    TestDecoder decoder;
    decoder.family = family;
    decoder.tied_head = false;
    for (const std::string& name : names) {
      for (const std::string& value : {kNan, kInfinity}) {
        const TempDirectory directory;
        WriteTestDecoder(decoder, directory.path());
        PatchElement(directory.path() + "/model.safetensors", name, 2, value);
        const auto package = Package::Open(directory.path());
        const absl::Status status = package.ok() ? LoadModel(*package).status() : package.status();
        EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
        EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(name), HasSubstr("index 2")));
      }
    }
  }
}

TEST(Decoders, RefuseModulesThatDoNotMatch) {
  for (const TestDecoder& plain : {TestGpt2(), TestLlama()}) {
    const TestDecoder decoder = plain.Converted();
    const auto refused = [&](const std::function<void(MoeSpec&)>& edit) {
      const absl::Status status = LoadStatus(decoder, json::object(), nullptr, edit);
      EXPECT_FALSE(status.ok());
      return std::string(status.message());
    };
    EXPECT_THAT(refused([](MoeSpec& moe) { moe.modules[1].layer = 2; }),
                AllOf(HasSubstr("/dimmer.json: layer 2"), HasSubstr("expected 0 to 1")));
    EXPECT_THAT(refused([](MoeSpec& moe) { moe.modules[0].module = Module::kQ; }),
                AllOf(HasSubstr("/dimmer.json: layer 0"), HasSubstr("found module q")));
    EXPECT_THAT(refused([](MoeSpec& moe) { moe.modules[1].experts = 5; }),
                AllOf(HasSubstr("layer 1"), HasSubstr("found 5 experts of 8 neurons"),
                      HasSubstr("expected 48 neurons")));
    EXPECT_THAT(
        refused([](MoeSpec& moe) { moe.modules[1].router_width = 9; }),
        AllOf(HasSubstr("routers.safetensors"), HasSubstr("[16, 24]"), HasSubstr("[9, 24]")));
  }
}

}  // namespace
}  // namespace dimmer
