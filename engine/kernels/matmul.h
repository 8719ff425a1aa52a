// Dense products with packed weights. Single-threaded: callers split rows or panels over threads,
// never k, and get the same bits however they split.
//
// Thread safety: pure functions.
#ifndef DIMMER_ENGINE_KERNELS_MATMUL_H_
#define DIMMER_ENGINE_KERNELS_MATMUL_H_

#include <cstddef>
#include <cstdint>

#include "engine/kernels/activation.h"
#include "engine/kernels/packed_matrix.h"

namespace dimmer {

// Rows of a row-major fp32 matrix: all of them, or a gathered subset.
struct RowsView {
  const float* data = nullptr;
  size_t stride = 0;                // floats
  const uint32_t* index = nullptr;  // row numbers; null: 0, 1, 2, ...

  const float* row(size_t i) const { return data + (index != nullptr ? index[i] : i) * stride; }
};

// out[r, panels] = activation(start + a[r, 0:k] W[panels]) for r in [0, rows) and the panels
// [first_panel, first_panel + panels). `out` points to row 0, column 0 of the whole result; its
// stride is PaddedWidth(w.n()) at least, and columns up to a whole panel are written.
// start: `bias` [PaddedWidth(w.n())], or, where it is null, what stands in `out`.
struct MatMulArgs {
  RowsView a;
  size_t rows = 0;
  const PackedMatrix* w = nullptr;
  size_t first_panel = 0;
  size_t panels = 0;
  const float* bias = nullptr;
  Activation activation = Activation::kNone;
  float* out = nullptr;
  size_t out_stride = 0;
};
void MatMul(const MatMulArgs& args);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_KERNELS_MATMUL_H_
