#include "engine/layers/embedding.h"

#include <cstdint>
#include <cstring>

#include "engine/kernels/rowwise.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

// The first value whose exponent bits are all set, i.e. that is infinite or NaN; `count` if none.
template <typename T>
size_t FindNonFinite(const T* values, size_t count, T exponent) {
  constexpr size_t kBlock = 4096;
  for (size_t begin = 0; begin < count; begin += kBlock) {
    const size_t end = begin + kBlock < count ? begin + kBlock : count;
    T found = 0;  // no early exit: this loop vectorises
    for (size_t i = begin; i < end; ++i) found |= T((values[i] & exponent) == exponent);
    if (found == 0) continue;
    for (size_t i = begin; i < end; ++i) {
      if ((values[i] & exponent) == exponent) return i;
    }
  }
  return count;
}

}  // namespace

absl::StatusOr<Embedding> Embedding::From(const TensorView& tensor) {
  const bool single = tensor.dtype == DType::kF32;
  if (!single && tensor.dtype != DType::kF16 && tensor.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {}: found dtype {}, expected F32, F16 or BF16", tensor.file, tensor.name,
                    DTypeName(tensor.dtype)));
  }
  if (tensor.shape.size() != 2) {
    return absl::InvalidArgumentError(fmt::format("{}: {}: found shape {}, expected two dimensions",
                                                  tensor.file, tensor.name,
                                                  ShapeString(tensor.shape)));
  }
  Embedding table;
  table.dtype_ = tensor.dtype;
  table.rows_ = static_cast<size_t>(tensor.shape[0]);
  table.width_ = static_cast<size_t>(tensor.shape[1]);
  table.data_ = AlignedBuffer<std::byte>(tensor.data.size());
  if (!tensor.data.empty()) {
    std::memcpy(table.data_.data(), tensor.data.data(), tensor.data.size());
  }
  const size_t count = table.rows_ * table.width_;
  const void* data = table.data_.data();
  const size_t bad =
      single ? FindNonFinite<uint32_t>(static_cast<const uint32_t*>(data), count, 0x7f800000)
             : FindNonFinite<uint16_t>(static_cast<const uint16_t*>(data), count,
                                       tensor.dtype == DType::kF16 ? 0x7c00 : 0x7f80);
  if (bad != count) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {}: found NaN or infinity at index {}, expected finite weights",
                    tensor.file, tensor.name, bad));
  }
  return table;
}

void Embedding::AddRow(size_t index, float* out) const {
  const void* row = data_.data() + index * width_ * DTypeSize(dtype_);
  switch (dtype_) {
    case DType::kF16:
      return AddHalf(static_cast<const uint16_t*>(row), width_, out);
    case DType::kBF16:
      return AddBFloat16(static_cast<const uint16_t*>(row), width_, out);
    default:
      return AddFloat(static_cast<const float*>(row), width_, out);
  }
}

}  // namespace dimmer
