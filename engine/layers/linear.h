// A dense linear layer, y = W x + b, over the rows of a batch.
//
// Thread safety: immutable once made; Apply may run on several threads with different outputs.
#ifndef DIMMER_ENGINE_LAYERS_LINEAR_H_
#define DIMMER_ENGINE_LAYERS_LINEAR_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/kernels/matmul.h"
#include "engine/kernels/packed_matrix.h"
#include "engine/util/thread_pool.h"

namespace dimmer {

class Linear {
 public:
  Linear() = default;
  // `n` outputs, `k` inputs; zero until set.
  Linear(size_t n, size_t k, WeightFormat format) : weight_(n, k, format), bias_(PaddedWidth(n)) {}

  // Outputs [first, first + bias.size()): `weight` [count, k] as torch.nn.Linear stores it. An
  // empty bias leaves zero, and the count follows from `weight`.
  void Set(size_t first, std::span<const float> weight, std::span<const float> bias);

  // out [rows, n] = activation(W a + b); `out_stride` >= PaddedWidth(n).
  void Apply(const RowsView& a, size_t rows, Activation activation, float* out, size_t out_stride,
             ThreadPool& pool) const;
  // out = W a + b + residual, both [rows, n] with stride `out_stride`; they may be the same.
  void ApplyAndAdd(const RowsView& a, size_t rows, const float* residual, float* out,
                   size_t out_stride, ThreadPool& pool) const;

  // out[0:k] += the weights of output `index`: where the matrix is an embedding table too.
  void AddWeights(size_t index, float* out) const { weight_.AddColumn(index, out); }

  size_t outputs() const { return weight_.n(); }
  size_t inputs() const { return weight_.k(); }
  size_t bytes() const { return weight_.bytes() + bias_.bytes(); }
  uint64_t flops() const { return 2 * uint64_t{outputs()} * inputs(); }  // per row

 private:
  PackedMatrix weight_;
  AlignedBuffer<float> bias_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_LINEAR_H_
