// Weight matrices in the order in which the kernels read them.
//
// A panel is 16 output columns (kPanel): one AVX-512 vector, two of AVX2. A matrix [n, k] (as
// torch.nn.Linear stores it: y = W x) is packed as [ceil(n / 16)][k][16]; columns past n are zero.
//
// Thread safety: immutable once packed.
#ifndef DIMMER_ENGINE_KERNELS_PACKED_MATRIX_H_
#define DIMMER_ENGINE_KERNELS_PACKED_MATRIX_H_

#include <cstddef>
#include <span>

#include "engine/kernels/activation.h"
#include "engine/kernels/aligned_buffer.h"

namespace dimmer {

inline constexpr size_t kPanel = 16;

inline constexpr size_t Panels(size_t columns) { return (columns + kPanel - 1) / kPanel; }
// The stride of activation rows of `columns` floats: whole panels, so that kernels store full
// vectors. What lies in the padding is never read as a value.
inline constexpr size_t PaddedWidth(size_t columns) { return Panels(columns) * kPanel; }

class PackedMatrix {
 public:
  PackedMatrix() = default;
  PackedMatrix(size_t n, size_t k);

  // Packs `rows` [count, k] as output columns [first, first + count).
  void PackColumns(size_t first, std::span<const float> rows);

  size_t n() const { return n_; }
  size_t k() const { return k_; }
  size_t panels() const { return Panels(n_); }
  const float* panel(size_t index) const { return data_.data() + index * k_ * kPanel; }
  size_t bytes() const { return data_.bytes(); }

 private:
  size_t n_ = 0;
  size_t k_ = 0;
  AlignedBuffer<float> data_;  // [panels][k][16]
};

// The two matrices of a feed-forward layer, split into experts (slabs of neurons). One buffer
// serves the dense pass and any subset of experts.
//
//   w1: a PackedMatrix [hidden, d]; expert n is columns [n * expert_size, (n + 1) * expert_size).
//   w2: [experts][panels of d][expert_size][16]: the slab of an expert is contiguous.
struct PackedFfn {
  size_t d = 0;
  size_t experts = 0;
  size_t expert_size = 0;
  Activation activation = Activation::kNone;
  PackedMatrix w1;
  AlignedBuffer<float> b1;  // [PaddedWidth(hidden)]
  AlignedBuffer<float> w2;
  AlignedBuffer<float> b2;  // [PaddedWidth(d)]

  size_t hidden() const { return experts * expert_size; }
  size_t panels() const { return Panels(d); }  // of the output
  const float* slab2(size_t expert) const {
    return w2.data() + expert * expert_size * panels() * kPanel;
  }
  size_t bytes() const { return w1.bytes() + b1.bytes() + w2.bytes() + b2.bytes(); }
};

// Sizes a PackedFfn for `hidden` neurons in `experts` slabs of `expert_size`. `hidden` may be less
// than experts * expert_size: neurons past it have zero weights and add exactly nothing.
PackedFfn MakePackedFfn(size_t d, size_t experts, size_t expert_size, Activation activation);
// `w1` [hidden, d], `b1` [hidden].
void PackFfnIn(std::span<const float> w1, std::span<const float> b1, PackedFfn& ffn);
// `w2` [d, hidden], `b2` [d].
void PackFfnOut(std::span<const float> w2, std::span<const float> b2, PackedFfn& ffn);

// The slab width in which a plain checkpoint's `hidden` neurons are packed: blocks whose weights
// stay in the second-level cache while many rows pass.
size_t DenseSlabSize(size_t hidden);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_KERNELS_PACKED_MATRIX_H_
