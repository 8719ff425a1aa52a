#include "tests/models/test_tensors.h"

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <utility>

namespace dimmer {

void CheckOk(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status << std::endl;
  std::abort();
}

TestTensor Drawer::Draw(std::vector<int64_t> shape, float scale, float center) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  TestTensor tensor{std::move(shape), std::vector<float>(static_cast<size_t>(count))};
  for (float& value : tensor.values) {
    // Not std::normal_distribution, whose values differ per library.
    const float unit = static_cast<float>(random_() >> 8) / static_cast<float>(1 << 24);
    value = std::round((center + scale * (4 * unit - 2)) * 1024) / 1024;
  }
  return tensor;
}

void WriteTensors(const std::string& path, const TestTensors& tensors, DType dtype) {
  std::vector<TensorToWrite> list;
  for (const auto& [name, tensor] : tensors) {
    list.push_back({name, dtype, tensor.shape, tensor.values});
  }
  CheckOk(WriteSafetensors(path, list, {{"format", "pt"}}));
}

}  // namespace dimmer
