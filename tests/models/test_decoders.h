// Small GPT-2 and Llama packages with random weights, for tests that need a decoder on disk.
#ifndef DIMMER_TESTS_MODELS_TEST_DECODERS_H_
#define DIMMER_TESTS_MODELS_TEST_DECODERS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/package/package.h"
#include "tests/models/test_tensors.h"

namespace dimmer {

struct TestDecoder {
  enum class Family : uint8_t { kGpt2, kLlama };
  // The model.
  Family family = Family::kGpt2;
  uint32_t vocab_size = 61;
  uint32_t width = 24;
  uint32_t layers = 2;
  uint32_t heads = 4;
  uint32_t kv_heads = 2;  // of Llama
  uint32_t hidden = 48;
  uint32_t max_positions = 300;
  bool tied_head = true;
  nlohmann::json end_ids;     // eos_token_id; null: none
  DType dtype = DType::kF16;  // every value is a multiple of 2^-10: exact in F16 and F32
  uint32_t seed = 1;
  // Its experts; 0: a plain checkpoint.
  uint32_t experts = 0;
  uint32_t router_width = 16;
  GateSpec gate;
  // How the file looks; of GPT-2.
  bool prefix = true;      // "transformer." before the names
  bool in_out = true;      // linear layers as [inputs, outputs]
  bool biases = true;      // of linear layers; without them, they are not drawn either
  bool old_names = false;  // LayerNorm's gamma and beta, and the masks of old files

  nlohmann::json Config() const;
  TestTensors Weights() const;
  TestTensors Routers() const;
  MoeSpec Moe() const;
  // With 6 experts of 8 neurons.
  TestDecoder Converted() const;
};

TestDecoder TestGpt2();
TestDecoder TestLlama();

// Writes config.json, model.safetensors and, with experts, routers.safetensors and dimmer.json into
// `directory`, which is made (with its parents) if it is not there. Aborts on failure.
void WriteTestDecoder(const TestDecoder& decoder, const std::string& directory);

// `count` random ids of its vocabulary.
std::vector<int32_t> RandomIds(const TestDecoder& decoder, size_t count, uint32_t seed);

}  // namespace dimmer

#endif  // DIMMER_TESTS_MODELS_TEST_DECODERS_H_
