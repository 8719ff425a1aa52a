#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/package/atomic_file.h"
#include "engine/package/safetensors.h"
#include "engine/util/float_formats.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr size_t kBlock = 1 << 16;  // values converted and written at a time

// The tensor's element type is one that can be written, and its shape that of its values.
absl::Status Check(const std::string& path, const TensorToWrite& tensor) {
  const std::string where = fmt::format("{}: tensor {}", path, tensor.name);
  if (tensor.name == "__metadata__") {
    return absl::InvalidArgumentError(
        fmt::format("{}: expected a name that is not reserved", where));
  }
  if (!IsFloat(tensor.dtype)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {}, expected F32, F16 or BF16", where, DTypeName(tensor.dtype)));
  }
  int64_t elements = 1;
  bool fits = true;
  for (const int64_t side : tensor.shape) {
    fits = fits && side >= 0 && !__builtin_mul_overflow(elements, side, &elements);
  }
  if (!fits || static_cast<uint64_t>(elements) != tensor.values.size()) {
    return absl::InvalidArgumentError(fmt::format("{}: found {} values, expected those of shape {}",
                                                  where, tensor.values.size(),
                                                  ShapeString(tensor.shape)));
  }
  return absl::OkStatus();
}

// Widest elements first, as other writers do: it keeps every tensor aligned. Then by name.
absl::StatusOr<std::vector<const TensorToWrite*>> InFileOrder(
    const std::string& path, std::span<const TensorToWrite> tensors) {
  std::vector<const TensorToWrite*> order;
  for (const TensorToWrite& tensor : tensors) {
    DIMMER_RETURN_IF_ERROR(Check(path, tensor));
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const TensorToWrite* a, const TensorToWrite* b) {
    const size_t size_a = DTypeSize(a->dtype);
    const size_t size_b = DTypeSize(b->dtype);
    return size_a != size_b ? size_a > size_b : a->name < b->name;
  });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->name == order[i - 1]->name) {
      return absl::InvalidArgumentError(
          fmt::format("{}: tensor {}: found it twice, expected each once", path, order[i]->name));
    }
  }
  return order;
}

absl::StatusOr<std::string> Header(const std::string& path,
                                   std::span<const TensorToWrite* const> order,
                                   const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const TensorToWrite* tensor : order) {
    const uint64_t end = offset + tensor->values.size() * DTypeSize(tensor->dtype);
    header[tensor->name] = {{"dtype", DTypeName(tensor->dtype)},
                            {"shape", tensor->shape},
                            {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& error) {  // a name that is not UTF-8
    return absl::InvalidArgumentError(fmt::format("{}: header: {}", path, error.what()));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data starts aligned
  return text;
}

uint32_t Encode(float value, DType dtype) {
  return dtype == DType::kF16 ? FloatToHalf(value) : FloatToBFloat16(value);
}

float Decode(uint32_t stored, DType dtype) {
  const auto bits = static_cast<uint16_t>(stored);
  return dtype == DType::kF16 ? HalfToFloat(bits) : BFloat16ToFloat(bits);
}

absl::Status Unstorable(const std::string& path, const TensorToWrite& tensor, size_t index) {
  return absl::InvalidArgumentError(
      fmt::format("{}: tensor {}: found {} at index {}, expected a value that is finite as {}",
                  path, tensor.name, tensor.values[index], index, DTypeName(tensor.dtype)));
}

absl::Status WriteValues(const std::string& path, const TensorToWrite& tensor, AtomicFile& file) {
  std::vector<uint16_t> stored;
  for (size_t start = 0; start < tensor.values.size(); start += kBlock) {
    const auto block = tensor.values.subspan(start, std::min(kBlock, tensor.values.size() - start));
    stored.resize(block.size());
    for (size_t i = 0; i < block.size(); ++i) {
      float read_back = block[i];
      if (tensor.dtype != DType::kF32) {
        stored[i] = static_cast<uint16_t>(Encode(block[i], tensor.dtype));
        read_back = Decode(stored[i], tensor.dtype);
      }
      if (!std::isfinite(read_back)) return Unstorable(path, tensor, start + i);
    }
    if (tensor.dtype == DType::kF32) {
      DIMMER_RETURN_IF_ERROR(file.Write(block.data(), block.size_bytes()));
    } else {
      DIMMER_RETURN_IF_ERROR(file.Write(stored.data(), stored.size() * sizeof(uint16_t)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteSafetensors(const std::string& path, std::span<const TensorToWrite> tensors,
                              const std::map<std::string, std::string>& metadata) {
  DIMMER_ASSIGN_OR_RETURN(const auto order, InFileOrder(path, tensors));
  DIMMER_ASSIGN_OR_RETURN(const std::string header, Header(path, order, metadata));
  DIMMER_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  const uint64_t length = header.size();
  DIMMER_RETURN_IF_ERROR(file.Write(&length, sizeof(length)));
  DIMMER_RETURN_IF_ERROR(file.Write(header.data(), header.size()));
  for (const TensorToWrite* tensor : order) {
    DIMMER_RETURN_IF_ERROR(WriteValues(path, *tensor, file));
  }
  return file.Commit();
}

}  // namespace dimmer
