// Random tensors for packages that tests write.
#ifndef DIMMER_TESTS_MODELS_TEST_TENSORS_H_
#define DIMMER_TESTS_MODELS_TEST_TENSORS_H_

#include <absl/status/status.h>

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "engine/package/safetensors.h"

namespace dimmer {

struct TestTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};
// By name, as in the file.
using TestTensors = std::map<std::string, TestTensor>;

// Draws values in the same order whatever the names are. Each is a multiple of 2^-10.
class Drawer {
 public:
  explicit Drawer(uint32_t seed) : random_(seed) {}
  // Uniform in center + [-2, 2) x scale.
  TestTensor Draw(std::vector<int64_t> shape, float scale, float center = 0);

 private:
  std::mt19937 random_;
};

// Aborts on failure.
void CheckOk(const absl::Status& status);
void WriteTensors(const std::string& path, const TestTensors& tensors, DType dtype);

}  // namespace dimmer

#endif  // DIMMER_TESTS_MODELS_TEST_TENSORS_H_
