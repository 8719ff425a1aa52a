#include "engine/kernels/packed_matrix.h"

#include <algorithm>

namespace dimmer {

PackedMatrix::PackedMatrix(size_t n, size_t k, WeightFormat format)
    : n_(n), k_(k), data_(Panels(n) * k * kPanel, format) {}

void PackedMatrix::PackColumns(size_t first, std::span<const float> rows) {
  const size_t count = k_ == 0 ? 0 : rows.size() / k_;
  data_.Fill([&](const auto& set) {
    for (size_t i = 0; i < count;) {
      // The columns of one panel together: every cache line of the panel is written once.
      const size_t column = first + i;
      const size_t lane = column % kPanel;
      const size_t lanes = std::min(kPanel - lane, count - i);
      const size_t panel = column / kPanel * k_ * kPanel + lane;
      const float* source = rows.data() + i * k_;
      for (size_t k = 0; k < k_; ++k) {
        for (size_t l = 0; l < lanes; ++l) set(panel + k * kPanel + l, source[l * k_ + k]);
      }
      i += lanes;
    }
  });
}

void PackedMatrix::AddColumn(size_t column, float* out) const {
  const size_t first = column / kPanel * k_ * kPanel + column % kPanel;
  const auto add = [&](const auto* from, const auto& widen) {
    for (size_t k = 0; k < k_; ++k) out[k] += widen(from[k * kPanel]);
  };
  switch (data_.format()) {
    case WeightFormat::kF32:
      return add(static_cast<const float*>(data_.at(first)), [](float value) { return value; });
    case WeightFormat::kF16:
      return add(static_cast<const uint16_t*>(data_.at(first)), HalfToFloat);
    case WeightFormat::kBF16:
      return add(static_cast<const uint16_t*>(data_.at(first)), BFloat16ToFloat);
  }
}

PackedFfn MakePackedFfn(size_t d, size_t experts, size_t expert_size, Activation activation,
                        WeightFormat format) {
  PackedFfn ffn;
  ffn.d = d;
  ffn.experts = experts;
  ffn.expert_size = expert_size;
  ffn.activation = activation;
  ffn.w1 = PackedMatrix(ffn.hidden(), d, format);
  ffn.b1 = AlignedBuffer<float>(PaddedWidth(ffn.hidden()));
  ffn.w2 = PackedWeights(ffn.hidden() * PaddedWidth(d), format);
  ffn.b2 = AlignedBuffer<float>(PaddedWidth(d));
  return ffn;
}

void PackFfnIn(std::span<const float> w1, std::span<const float> b1, PackedFfn& ffn) {
  ffn.w1.PackColumns(0, w1);
  std::copy(b1.begin(), b1.end(), ffn.b1.data());
}

void PackFfnUp(std::span<const float> up, PackedFfn& ffn) {
  ffn.up = PackedMatrix(ffn.hidden(), ffn.d, ffn.w1.format());
  ffn.up.PackColumns(0, up);
}

void PackFfnOut(std::span<const float> w2, std::span<const float> b2, PackedFfn& ffn) {
  const size_t hidden = w2.size() / ffn.d;
  const size_t panels = ffn.panels();
  ffn.w2.Fill([&](const auto& set) {
    for (size_t column = 0; column < ffn.d; ++column) {
      const float* source = w2.data() + column * hidden;
      const size_t panel = column / kPanel;
      const size_t lane = column % kPanel;
      for (size_t neuron = 0; neuron < hidden; ++neuron) {
        const size_t expert = neuron / ffn.expert_size;
        const size_t row = neuron % ffn.expert_size;
        set(((expert * panels + panel) * ffn.expert_size + row) * kPanel + lane, source[neuron]);
      }
    }
  });
  std::copy(b2.begin(), b2.end(), ffn.b2.data());
}

size_t DenseSlabSize(size_t hidden) {
  constexpr size_t kSlab = 192;
  const size_t slabs = std::max<size_t>(1, (hidden + kSlab - 1) / kSlab);
  return std::max(kPanel, PaddedWidth((hidden + slabs - 1) / slabs));
}

}  // namespace dimmer
