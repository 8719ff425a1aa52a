// A lookup table that stays in the format it was stored in: a 16-bit checkpoint's largest tensor
// costs half of its fp32 size.
//
// Thread safety: immutable once made.
#ifndef DIMMER_ENGINE_LAYERS_EMBEDDING_H_
#define DIMMER_ENGINE_LAYERS_EMBEDDING_H_

#include <absl/status/statusor.h>

#include <cstddef>

#include "engine/kernels/aligned_buffer.h"
#include "engine/package/safetensors.h"

namespace dimmer {

class Embedding {
 public:
  Embedding() = default;
  // Copies a float tensor [rows, width]. InvalidArgument names file, tensor and index of the first
  // value that is NaN or infinite.
  static absl::StatusOr<Embedding> From(const TensorView& tensor);

  // out [width] += row `index`.
  void AddRow(size_t index, float* out) const;

  size_t rows() const { return rows_; }
  size_t width() const { return width_; }
  size_t bytes() const { return data_.bytes(); }

 private:
  DType dtype_ = DType::kF32;
  size_t rows_ = 0;
  size_t width_ = 0;
  AlignedBuffer<std::byte> data_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_EMBEDDING_H_
