#include "engine/layers/layer_norm.h"

#include <algorithm>

#include "engine/kernels/packed_matrix.h"
#include "engine/kernels/rowwise.h"
#include "engine/layers/partition.h"

namespace dimmer {
namespace {

template <typename F>
void ForRows(size_t rows, ThreadPool& pool, const F& run) {
  const size_t blocks = rows >= kRowsToSplit * pool.threads() ? pool.threads() : 1;
  pool.ParallelFor(blocks, [&](size_t block, size_t) {
    const Range range = RangeOf(rows, blocks, block);
    for (size_t r = range.begin; r < range.end; ++r) run(r);
  });
}

}  // namespace

LayerNorm::LayerNorm(std::span<const float> gamma, std::span<const float> beta, float epsilon)
    : d_(gamma.size()),
      epsilon_(epsilon),
      gamma_(PaddedWidth(gamma.size())),
      beta_(PaddedWidth(beta.size())) {
  std::copy(gamma.begin(), gamma.end(), gamma_.data());
  std::copy(beta.begin(), beta.end(), beta_.data());
}

void LayerNorm::Apply(const float* x, size_t rows, size_t stride, float* out,
                      ThreadPool& pool) const {
  ForRows(rows, pool, [&](size_t r) {
    LayerNormRow(x + r * stride, gamma_.data(), beta_.data(), d_, epsilon_, out + r * stride);
  });
}

RmsNorm::RmsNorm(std::span<const float> gamma, float epsilon)
    : d_(gamma.size()), epsilon_(epsilon), gamma_(PaddedWidth(gamma.size())) {
  std::copy(gamma.begin(), gamma.end(), gamma_.data());
}

void RmsNorm::Apply(const float* x, size_t rows, size_t stride, float* out,
                    ThreadPool& pool) const {
  ForRows(rows, pool, [&](size_t r) {
    RmsNormRow(x + r * stride, gamma_.data(), d_, epsilon_, out + r * stride);
  });
}

}  // namespace dimmer
