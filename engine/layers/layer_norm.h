// Layer normalisation over the last dimension.
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

  // x [rows, d] in place; `stride` >= PaddedWidth(d).
  void Apply(float* x, size_t rows, size_t stride, ThreadPool& pool) const;

  size_t bytes() const { return gamma_.bytes() + beta_.bytes(); }

 private:
  size_t d_ = 0;
  float epsilon_ = 0;
  AlignedBuffer<float> gamma_;  // padded
  AlignedBuffer<float> beta_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_LAYER_NORM_H_
