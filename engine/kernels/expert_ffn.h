// Feed-forward experts over gathered rows. The dense layer is the same product with all experts
// and all rows, and gives the same bits: experts are added to an output row in ascending order,
// neurons ascending inside each (micro_kernel.h).
//
// Thread safety: pure functions; rows of one call's `out` must be written by that call alone.
#ifndef DIMMER_ENGINE_KERNELS_EXPERT_FFN_H_
#define DIMMER_ENGINE_KERNELS_EXPERT_FFN_H_

#include <cstddef>
#include <cstdint>

#include "engine/kernels/micro_kernel.h"
#include "engine/kernels/packed_matrix.h"

namespace dimmer {

// Floats of `hidden` that one row needs for `experts` consecutive experts.
size_t HiddenStride(const PackedFfn& ffn, size_t experts);

struct ExpertRows {
  const float* z = nullptr;  // inputs [*, z_stride]
  size_t z_stride = 0;
  float* out = nullptr;  // [*, out_stride], out_stride >= PaddedWidth(d)
  size_t out_stride = 0;
  const uint32_t* rows = nullptr;  // row numbers, in z and in out; null: 0, 1, 2, ...
  size_t count = 0;
};

// out[row] += act(z[row] W1 + b1) W2 over the neurons of experts [first, first + experts).
// `scratch`: kMaxTileRows * HiddenStride(ffn, experts) floats.
void RunExperts(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
                float* scratch);

// The two halves of it, for a few rows and many threads. `hidden` [count, HiddenStride(experts)].
void ExpertsHidden(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
                   float* hidden);
// Only the output panels [first_panel, first_panel + panels).
void ExpertsOut(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
                const float* hidden, size_t first_panel, size_t panels);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_KERNELS_EXPERT_FFN_H_
