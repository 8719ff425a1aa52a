#include "engine/layers/layer_norm.h"

#include <algorithm>

#include "engine/kernels/packed_matrix.h"
#include "engine/kernels/rowwise.h"
#include "engine/layers/partition.h"

namespace dimmer {

LayerNorm::LayerNorm(std::span<const float> gamma, std::span<const float> beta, float epsilon)
    : d_(gamma.size()),
      epsilon_(epsilon),
      gamma_(PaddedWidth(gamma.size())),
      beta_(PaddedWidth(beta.size())) {
  std::copy(gamma.begin(), gamma.end(), gamma_.data());
  std::copy(beta.begin(), beta.end(), beta_.data());
}

void LayerNorm::Apply(float* x, size_t rows, size_t stride, ThreadPool& pool) const {
  const size_t blocks = rows >= kRowsToSplit * pool.threads() ? pool.threads() : 1;
  pool.ParallelFor(blocks, [&](size_t block, size_t) {
    const Range range = RangeOf(rows, blocks, block);
    for (size_t r = range.begin; r < range.end; ++r) {
      float* row = x + r * stride;
      LayerNormRow(row, gamma_.data(), beta_.data(), d_, epsilon_, row);
    }
  });
}

}  // namespace dimmer
