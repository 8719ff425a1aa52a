// Layer normalisation over the last dimension, and its kin without mean and shift.
//
// Thread safety: immutable once made.
#ifndef DIMMER_ENGINE_LAYERS_LAYER_NORM_H_
#define DIMMER_ENGINE_LAYERS_LAYER_NORM_H_

#include <cstddef>
#include <span>

#include "engine/kernels/aligned_buffer.h"
#include "engine/util/thread_pool.h"

namespace dimmer {

class LayerNorm {
 public:
  LayerNorm() = default;
  LayerNorm(std::span<const float> gamma, std::span<const float> beta, float epsilon);

  // x, out [rows, d], which may be the same; `stride` >= PaddedWidth(d), of both.
  void Apply(const float* x, size_t rows, size_t stride, float* out, ThreadPool& pool) const;

  size_t bytes() const { return gamma_.bytes() + beta_.bytes(); }

 private:
  size_t d_ = 0;
  float epsilon_ = 0;
  AlignedBuffer<float> gamma_;  // padded
  AlignedBuffer<float> beta_;
};

class RmsNorm {
 public:
  RmsNorm() = default;
  RmsNorm(std::span<const float> gamma, float epsilon);

  // As LayerNorm::Apply.
  void Apply(const float* x, size_t rows, size_t stride, float* out, ThreadPool& pool) const;

  size_t bytes() const { return gamma_.bytes(); }

 private:
  size_t d_ = 0;
  float epsilon_ = 0;
  AlignedBuffer<float> gamma_;  // padded
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_LAYER_NORM_H_
