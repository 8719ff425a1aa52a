// Weight matrices in the order in which the kernels read them.
//
// A panel is 16 output columns (kPanel): one AVX-512 vector, two of AVX2. A matrix [n, k] (as
// torch.nn.Linear stores it: y = W x) is packed as [ceil(n / 16)][k][16]; columns past n are zero.
//
// A 16-bit checkpoint's weights stay in 16 bits, which halves their memory and what a small batch
// waits for; the kernels widen them as they load them, exactly.
//
// Thread safety: immutable once packed.
#ifndef DIMMER_ENGINE_KERNELS_PACKED_MATRIX_H_
#define DIMMER_ENGINE_KERNELS_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/kernels/activation.h"
#include "engine/kernels/aligned_buffer.h"
#include "engine/util/float_formats.h"

namespace dimmer {

inline constexpr size_t kPanel = 16;

inline constexpr size_t Panels(size_t columns) { return (columns + kPanel - 1) / kPanel; }
// The stride of activation rows of `columns` floats: whole panels, so that kernels store full
// vectors. What lies in the padding is never read as a value.
inline constexpr size_t PaddedWidth(size_t columns) { return Panels(columns) * kPanel; }

enum class WeightFormat : uint8_t { kF32, kF16, kBF16 };
inline constexpr size_t WeightSize(WeightFormat format) {
  return format == WeightFormat::kF32 ? 4 : 2;
}

// A buffer of weights in one of the formats, zero at first.
class PackedWeights {
 public:
  PackedWeights() = default;
  PackedWeights(size_t size, WeightFormat format)
      : format_(format), data_(size * WeightSize(format)) {}

  // Calls fill(set), in which set(i, value) stores a value, rounded if the format does not hold it.
  template <typename F>
  void Fill(const F& fill) {
    switch (format_) {
      case WeightFormat::kF32:
        return fill([to = As<float>()](size_t i, float value) { to[i] = value; });
      case WeightFormat::kF16:
        return fill([to = As<uint16_t>()](size_t i, float value) { to[i] = FloatToHalf(value); });
      case WeightFormat::kBF16:
        return fill(
            [to = As<uint16_t>()](size_t i, float value) { to[i] = FloatToBFloat16(value); });
    }
  }

  const void* at(size_t element) const { return data_.data() + element * WeightSize(format_); }
  WeightFormat format() const { return format_; }
  size_t bytes() const { return data_.bytes(); }

 private:
  template <typename T>
  T* As() {
    return reinterpret_cast<T*>(data_.data());
  }

  WeightFormat format_ = WeightFormat::kF32;
  AlignedBuffer<std::byte> data_;
};

class PackedMatrix {
 public:
  PackedMatrix() = default;
  PackedMatrix(size_t n, size_t k, WeightFormat format);

  // Packs `rows` [count, k] as output columns [first, first + count).
  void PackColumns(size_t first, std::span<const float> rows);

  // out[0:k] += the weights of output column `column`: a row of the matrix as it was given.
  void AddColumn(size_t column, float* out) const;

  size_t n() const { return n_; }
  size_t k() const { return k_; }
  size_t panels() const { return Panels(n_); }
  WeightFormat format() const { return data_.format(); }
  const void* panel(size_t index) const { return data_.at(index * k_ * kPanel); }
  size_t bytes() const { return data_.bytes(); }

 private:
  size_t n_ = 0;
  size_t k_ = 0;
  PackedWeights data_;  // [panels][k][16]
};

// The two matrices of a feed-forward layer, split into experts (slabs of neurons). One buffer
// serves the dense pass and any subset of experts.
//
//   w1: a PackedMatrix [hidden, d]; expert n is columns [n * expert_size, (n + 1) * expert_size).
//   up: empty, or of a gated layer (SwiGLU) a second matrix like w1: the hidden value of a neuron
//       is act(z w1 + b1) * (z up).
//   w2: [experts][panels of d][expert_size][16]: the slab of an expert is contiguous.
struct PackedFfn {
  size_t d = 0;
  size_t experts = 0;
  size_t expert_size = 0;
  Activation activation = Activation::kNone;
  PackedMatrix w1;
  PackedMatrix up;
  AlignedBuffer<float> b1;  // [PaddedWidth(hidden)]
  PackedWeights w2;
  AlignedBuffer<float> b2;  // [PaddedWidth(d)]

  bool gated() const { return up.n() > 0; }
  size_t hidden() const { return experts * expert_size; }
  size_t panels() const { return Panels(d); }  // of the output
  // Panel `panel` of an expert's slab of w2.
  const void* out_panel(size_t expert, size_t panel) const {
    return w2.at((expert * panels() + panel) * expert_size * kPanel);
  }
  size_t bytes() const { return w1.bytes() + up.bytes() + b1.bytes() + w2.bytes() + b2.bytes(); }
};

// Sizes a PackedFfn for `hidden` neurons in `experts` slabs of `expert_size`. `hidden` may be less
// than experts * expert_size: neurons past it have zero weights and add exactly nothing.
PackedFfn MakePackedFfn(size_t d, size_t experts, size_t expert_size, Activation activation,
                        WeightFormat format);
// `w1` [hidden, d], `b1` [hidden] or empty, which leaves zero.
void PackFfnIn(std::span<const float> w1, std::span<const float> b1, PackedFfn& ffn);
// `up` [hidden, d]: makes the layer a gated one.
void PackFfnUp(std::span<const float> up, PackedFfn& ffn);
// `w2` [d, hidden], `b2` [d] or empty.
void PackFfnOut(std::span<const float> w2, std::span<const float> b2, PackedFfn& ffn);

// The slab width in which a plain checkpoint's `hidden` neurons are packed: blocks whose weights
// stay in the second-level cache while many rows pass.
size_t DenseSlabSize(size_t hidden);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_KERNELS_PACKED_MATRIX_H_
