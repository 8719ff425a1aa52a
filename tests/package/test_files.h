// Small files, good and bad, for the tests of this folder.
#ifndef DIMMER_TESTS_PACKAGE_TEST_FILES_H_
#define DIMMER_TESTS_PACKAGE_TEST_FILES_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/package/package.h"

namespace dimmer {

// A fresh directory, removed with everything in it.
class TempDirectory {
 public:
  TempDirectory() {
    std::string pattern = testing::TempDir() + "dimmer-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A safetensors file of this header and this data, whatever they are.
inline std::string RawSafetensors(const std::string& header, const std::string& data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(uint64_t{header.size()} >> (8 * i));
  return bytes + header + data;
}

// A converted package of one layer: 6 neurons of width 4 as 3 experts of 2, routers of width 2.
inline MoeSpec TinySpec() {
  MoeSpec spec;
  spec.modules = {
      {.layer = 0, .module = Module::kFfn, .experts = 3, .expert_size = 2, .router_width = 2}};
  spec.gate.default_tau = 0.125;
  spec.calibration = {.metric = "accuracy",
                      .rows = 10,
                      .tokens = 77,
                      .points = {{.tau = 0,
                                  .flop_fraction = 1,
                                  .quality = 0.9,
                                  .quality_low = 0.8,
                                  .quality_high = 0.95,
                                  .experts_run = {3}},
                                 {.tau = 1,
                                  .flop_fraction = 0.5,
                                  .quality = 0.5,
                                  .quality_low = 0.4,
                                  .quality_high = 0.5,
                                  .experts_run = {1}}}};
  spec.provenance = {{"command", "dimmer-convert run"}, {"seed", 7}};
  return spec;
}

inline std::vector<float> Numbers(size_t count, float start) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = start + 0.25F * static_cast<float>(i);
  return values;
}

inline void WriteTinyRouters(const std::string& directory) {
  const std::vector<float> w1 = Numbers(8, -1);
  const std::vector<float> w2 = Numbers(6, 0);
  const std::vector<TensorToWrite> tensors = {
      {.name = "layers.0.ffn.router.w1", .dtype = DType::kF32, .shape = {2, 4}, .values = w1},
      {.name = "layers.0.ffn.router.w2", .dtype = DType::kF32, .shape = {3, 2}, .values = w2}};
  ASSERT_TRUE(WriteSafetensors(directory + "/routers.safetensors", tensors, {}).ok());
}

// All files of the package but dimmer.json.
inline void WriteTinyCheckpoint(const std::string& directory) {
  WriteBytes(directory + "/config.json",
             R"({"architectures": ["BertModel"], "hidden_size": 4, "intermediate_size": 6})");
  WriteBytes(directory + "/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nlight\n");
  const std::vector<float> w1 = Numbers(24, -2);
  const std::vector<float> bias = Numbers(6, 1);
  const std::vector<TensorToWrite> tensors = {
      {.name = "w1", .dtype = DType::kF16, .shape = {6, 4}, .values = w1},
      {.name = "b1", .dtype = DType::kF32, .shape = {6}, .values = bias}};
  ASSERT_TRUE(WriteSafetensors(directory + "/model.safetensors", tensors, {{"format", "pt"}}).ok());
  WriteTinyRouters(directory);
}

inline void WriteTinyPackage(const std::string& directory) {
  WriteTinyCheckpoint(directory);
  const absl::Status status = WriteMoeSpec(directory, TinySpec());
  ASSERT_TRUE(status.ok()) << status;
}

}  // namespace dimmer

#endif  // DIMMER_TESTS_PACKAGE_TEST_FILES_H_
