#include "engine/kernels/expert_ffn.h"

#include "engine/kernels/hwy_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/kernels/expert_ffn.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "engine/kernels/activation-inl.h"
#include "engine/kernels/micro_kernel-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace dimmer::HWY_NAMESPACE {

static_assert(size_t{kMaxRows} <= kMaxTileRows);

// The panels of W1 that hold the neurons of consecutive experts. Slabs that are no multiple of a
// panel share their first and last panel with their neighbours: those columns are computed and
// not used.
struct HiddenPanels {
  size_t first;
  size_t count;
  size_t offset;  // of the first neuron in the first panel
};

HWY_INLINE HiddenPanels PanelsOf(const PackedFfn& ffn, size_t first, size_t experts) {
  const size_t begin = first * ffn.expert_size;
  const size_t end = (first + experts) * ffn.expert_size;
  const size_t first_panel = begin / kPanel;
  return {first_panel, Panels(end) - first_panel, begin % kPanel};
}

// Rows [begin, begin + count) of an ExpertRows, the `index`th tile of them.
struct RowTile {
  size_t index;
  size_t begin;
  size_t count;
};

template <typename F>
HWY_INLINE void ForEachTile(size_t rows, const F& run) {
  const size_t tiles = RowTiles(rows);
  for (size_t t = 0; t < tiles; ++t) {
    const size_t begin = TileBegin(rows, tiles, t);
    run(RowTile{t, begin, TileBegin(rows, tiles, t + 1) - begin});
  }
}

HWY_INLINE size_t RowNumber(const ExpertRows& rows, size_t i) {
  return rows.rows != nullptr ? rows.rows[i] : i;
}

// hidden[r, 0:panels] = act(z[row] W1 + b1), for one tile of rows.
void HiddenTile(const PackedFfn& ffn, size_t first_panel, size_t panels, const ExpertRows& rows,
                const RowTile& tile, float* hidden, size_t stride) {
  const float* a[kMaxRows];
  float* out[kMaxRows];
  for (size_t r = 0; r < tile.count; ++r) {
    a[r] = rows.z + RowNumber(rows, tile.begin + r) * rows.z_stride;
    out[r] = hidden + r * stride;
  }
  TileArgs multiply = {};
  multiply.a = a;
  multiply.k = ffn.d;
  multiply.blocks = 1;
  multiply.b = ffn.w1.panel(first_panel);
  multiply.panel_stride = ffn.d * kPanel;
  multiply.out = out;
  multiply.bias = ffn.b1.data() + first_panel * kPanel;
  multiply.ahead = AheadOf(tile.index, panels * multiply.panel_stride, multiply.panel_stride);
  MultiplyPanels(tile.count, panels, multiply);
  for (size_t r = 0; r < tile.count; ++r) ActivateRow(ffn.activation, out[r], panels * kPanel);
}

// out[row, panels] += hidden[r] W2, for one tile of rows.
void OutTile(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
             const RowTile& tile, const float* hidden, size_t stride, size_t first_panel,
             size_t panels) {
  const float* a[kMaxRows];
  float* out[kMaxRows];
  for (size_t r = 0; r < tile.count; ++r) {
    a[r] = hidden + r * stride;
    out[r] = rows.out + RowNumber(rows, tile.begin + r) * rows.out_stride;
  }
  TileArgs multiply = {};
  multiply.a = a;
  multiply.k = ffn.expert_size;
  multiply.blocks = experts;
  multiply.b = ffn.slab2(first) + first_panel * ffn.expert_size * kPanel;
  multiply.panel_stride = ffn.expert_size * kPanel;
  multiply.block_stride = ffn.expert_size * kPanel * ffn.panels();
  multiply.out = out;
  multiply.column = first_panel * kPanel;
  multiply.bias = nullptr;
  multiply.ahead = AheadOf(tile.index, experts * multiply.block_stride, multiply.panel_stride);
  MultiplyPanels(tile.count, panels, multiply);
}

void RunExpertsImpl(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
                    float* scratch) {
  const HiddenPanels panels = PanelsOf(ffn, first, experts);
  const size_t stride = panels.count * kPanel;
  ForEachTile(rows.count, [&](const RowTile& tile) HWY_ATTR {
    HiddenTile(ffn, panels.first, panels.count, rows, tile, scratch, stride);
    OutTile(ffn, first, experts, rows, tile, scratch + panels.offset, stride, 0, ffn.panels());
  });
}

void ExpertsHiddenImpl(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
                       float* hidden) {
  const HiddenPanels panels = PanelsOf(ffn, first, experts);
  const size_t stride = HiddenStride(ffn, experts);
  // All rows pass while two panels are in the cache.
  for (size_t p = 0; p < panels.count; p += 2) {
    ForEachTile(rows.count, [&](const RowTile& tile) HWY_ATTR {
      HiddenTile(ffn, panels.first + p, HWY_MIN(2, panels.count - p), rows, tile,
                 hidden + tile.begin * stride + p * kPanel, stride);
    });
  }
}

void ExpertsOutImpl(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
                    const float* hidden, size_t first_panel, size_t panels) {
  const size_t offset = PanelsOf(ffn, first, experts).offset;
  const size_t stride = HiddenStride(ffn, experts);
  ForEachTile(rows.count, [&](const RowTile& tile) HWY_ATTR {
    OutTile(ffn, first, experts, rows, tile, hidden + tile.begin * stride + offset, stride,
            first_panel, panels);
  });
}

}  // namespace dimmer::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dimmer {

size_t HiddenStride(const PackedFfn& ffn, size_t experts) {
  // Neurons that begin anywhere in a panel and end anywhere in another.
  const size_t aligned = ffn.expert_size % kPanel == 0 ? 0 : kPanel;
  return PaddedWidth(experts * ffn.expert_size) + aligned;
}

HWY_EXPORT(RunExpertsImpl);
HWY_EXPORT(ExpertsHiddenImpl);
HWY_EXPORT(ExpertsOutImpl);

void RunExperts(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
                float* scratch) {
  HWY_DYNAMIC_DISPATCH(RunExpertsImpl)(ffn, first, experts, rows, scratch);
}

void ExpertsHidden(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
                   float* hidden) {
  HWY_DYNAMIC_DISPATCH(ExpertsHiddenImpl)(ffn, first, experts, rows, hidden);
}

void ExpertsOut(const PackedFfn& ffn, size_t first, size_t experts, const ExpertRows& rows,
                const float* hidden, size_t first_panel, size_t panels) {
  HWY_DYNAMIC_DISPATCH(ExpertsOutImpl)(ffn, first, experts, rows, hidden, first_panel, panels);
}

}  // namespace dimmer
#endif  // HWY_ONCE
