#include "engine/kernels/expert_ffn.h"

#include <algorithm>

#include "engine/kernels/micro_kernel.h"
#include "engine/kernels/rowwise.h"

namespace dimmer {
namespace {

// The panels of W1 that hold the neurons of consecutive experts. Slabs that are no multiple of a
// panel share their first and last panel with their neighbours: those columns are computed and
// not used.
struct HiddenPanels {
  size_t first;
  size_t count;
  size_t offset;  // of the first neuron in the first panel
};

HiddenPanels PanelsOf(const PackedFfn& ffn, size_t first, size_t experts) {
  const size_t begin = first * ffn.expert_size;
  const size_t end = (first + experts) * ffn.expert_size;
  const size_t first_panel = begin / kPanel;
  return {first_panel, Panels(end) - first_panel, begin % kPanel};
}

size_t RowNumber(const ExpertRows& rows, size_t i) {
  return rows.rows != nullptr ? rows.rows[i] : i;
}

// out[r, 0:panels] *= a[r] Up, for one tile of rows.
void MultiplyByUp(const PackedFfn& ffn, size_t first_panel, size_t panels, const float* const* a,
                  float* const* out, size_t rows) {
  constexpr size_t kStep = 8;  // panels
  static constexpr float kZeros[kStep * kPanel] = {};
  alignas(64) float up[kMaxTileRows][kStep * kPanel];
  float* up_rows[kMaxTileRows];
  for (size_t r = 0; r < rows; ++r) up_rows[r] = up[r];
  TileArgs multiply = {};
  multiply.a = a;
  multiply.k = ffn.d;
  multiply.blocks = 1;
  multiply.format = ffn.up.format();
  multiply.panel_stride = ffn.d * kPanel;
  multiply.out = up_rows;
  multiply.bias = kZeros;
  for (size_t p = 0; p < panels; p += kStep) {
    const size_t step = std::min(kStep, panels - p);
    multiply.b = ffn.up.panel(first_panel + p);
    MultiplyPanels(rows, step, multiply);
    for (size_t r = 0; r < rows; ++r) MultiplyRow(up[r], step * kPanel, out[r] + p * kPanel);
  }
}

// hidden[r, 0:panels] = act(z[row] W1 + b1), times z[row] Up where gated, for one tile of rows.
void HiddenTile(const PackedFfn& ffn, size_t first_panel, size_t panels, const ExpertRows& rows,
                const RowTile& tile, float* hidden, size_t stride) {
  const float* a[kMaxTileRows];
  float* out[kMaxTileRows];
  for (size_t r = 0; r < tile.count; ++r) {
    a[r] = rows.z + RowNumber(rows, tile.begin + r) * rows.z_stride;
    out[r] = hidden + r * stride;
  }
  TileArgs multiply = {};
  multiply.a = a;
  multiply.k = ffn.d;
  multiply.blocks = 1;
  multiply.b = ffn.w1.panel(first_panel);
  multiply.format = ffn.w1.format();
  multiply.panel_stride = ffn.d * kPanel;
  multiply.out = out;
  multiply.bias = ffn.b1.data() + first_panel * kPanel;
  multiply.ahead = AheadOf(tile, panels * multiply.panel_stride, multiply.panel_stride);
  MultiplyPanels(tile.count, panels, multiply);
  for (size_t r = 0; r < tile.count; ++r) Activate(ffn.activation, out[r], panels * kPanel);
  if (ffn.gated()) MultiplyByUp(ffn, first_panel, panels, a, out, tile.count);
}

// out[row, panels] += hidden[r] W2, for one tile of rows.
void OutTile(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
             const RowTile& tile, const float* hidden, size_t stride, size_t first_panel,
             size_t panels) {
  const float* a[kMaxTileRows];
  float* out[kMaxTileRows];
  for (size_t r = 0; r < tile.count; ++r) {
    a[r] = hidden + r * stride;
    out[r] = rows.out + RowNumber(rows, tile.begin + r) * rows.out_stride;
  }
  TileArgs multiply = {};
  multiply.a = a;
  multiply.k = ffn.expert_size;
  multiply.blocks = experts;
  multiply.b = ffn.out_panel(first, first_panel);
  multiply.format = ffn.w2.format();
  multiply.panel_stride = ffn.expert_size * kPanel;
  multiply.block_stride = ffn.expert_size * kPanel * ffn.panels();
  multiply.out = out;
  multiply.column = first_panel * kPanel;
  multiply.bias = nullptr;
  multiply.ahead = AheadOf(tile, experts * multiply.block_stride, multiply.panel_stride);
  MultiplyPanels(tile.count, panels, multiply);
}

}  // namespace

size_t HiddenStride(const PackedFfn& ffn, size_t experts) {
  // Neurons that begin anywhere in a panel and end anywhere in another.
  const size_t aligned = ffn.expert_size % kPanel == 0 ? 0 : kPanel;
  return PaddedWidth(experts * ffn.expert_size) + aligned;
}

void RunExperts(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
                float* scratch) {
  const HiddenPanels panels = PanelsOf(ffn, first, experts);
  const size_t stride = panels.count * kPanel;
  ForEachTile(rows.count, [&](const RowTile& tile) {
    HiddenTile(ffn, panels.first, panels.count, rows, tile, scratch, stride);
    OutTile(ffn, first, experts, rows, tile, scratch + panels.offset, stride, 0, ffn.panels());
  });
}

void ExpertsHidden(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
                   float* hidden) {
  const HiddenPanels panels = PanelsOf(ffn, first, experts);
  const size_t stride = HiddenStride(ffn, experts);
  // All rows pass while two panels are in the cache.
  for (size_t p = 0; p < panels.count; p += 2) {
    ForEachTile(rows.count, [&](const RowTile& tile) {
      HiddenTile(ffn, panels.first + p, std::min<size_t>(2, panels.count - p), rows, tile,
                 hidden + tile.begin * stride + p * kPanel, stride);
    });
  }
}

void ExpertsOut(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
                const float* hidden, size_t first_panel, size_t panels) {
  const size_t offset = PanelsOf(ffn, first, experts).offset;
  const size_t stride = HiddenStride(ffn, experts);
  ForEachTile(rows.count, [&](const RowTile& tile) {
    OutTile(ffn, first, experts, rows, tile, hidden + tile.begin * stride + offset, stride,
            first_panel, panels);
  });
}

}  // namespace dimmer
