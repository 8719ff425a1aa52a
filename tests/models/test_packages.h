// Small BERT packages with random weights, for tests that need a model on disk.
#ifndef DIMMER_TESTS_MODELS_TEST_PACKAGES_H_
#define DIMMER_TESTS_MODELS_TEST_PACKAGES_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/package/package.h"
#include "tests/models/test_tensors.h"

namespace dimmer {

// A fresh directory, removed with all it holds when the object goes.
class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  const std::string& path() const { return path_; }
  std::string Sub(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

struct TestBert {
  // The model.
  uint32_t vocab_size = 60;
  uint32_t hidden_size = 24;
  uint32_t layers = 2;
  uint32_t heads = 3;
  uint32_t intermediate_size = 48;
  uint32_t max_positions = 40;
  uint32_t labels = 3;  // 0: a BertModel, without a head
  std::string hidden_act = "gelu";
  DType dtype = DType::kF16;  // every value is a multiple of 2^-10: exact in F16 and F32
  uint32_t seed = 1;
  // Its experts; 0: a plain checkpoint.
  uint32_t experts = 0;
  uint32_t router_width = 5;
  GateSpec gate;
  Calibration calibration;
  // How the file looks.
  bool prefix = true;         // "bert." before the encoder's tensors
  bool old_norms = false;     // LayerNorm.gamma and .beta
  bool extra_tensors = true;  // position_ids
  bool vocabulary = false;    // a vocab.txt of vocab_size lines, and tokenizer_config.json

  nlohmann::json Config() const;
  TestTensors Weights() const;
  TestTensors Routers() const;
  MoeSpec Moe() const;
};

// Writes config.json, model.safetensors and, with experts, routers.safetensors and dimmer.json into
// `directory`, which is made (with its parents) if it is not there. Aborts on failure.
void WriteTestBert(const TestBert& bert, const std::string& directory);

// A repository of one model: <root>/<model>/1/.
void WriteTestRepository(const TestBert& bert, const std::string& root, const std::string& model);

// `count` random ids below bert.vocab_size.
std::vector<int32_t> RandomIds(const TestBert& bert, size_t count, uint32_t seed);

}  // namespace dimmer

#endif  // DIMMER_TESTS_MODELS_TEST_PACKAGES_H_
