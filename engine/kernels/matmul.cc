#include "engine/kernels/matmul.h"

#include "engine/kernels/hwy_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/kernels/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "engine/kernels/activation-inl.h"
#include "engine/kernels/micro_kernel-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace dimmer::HWY_NAMESPACE {

// Rows whose A (at k = 384) and C stay in the second-level cache while all panels pass.
constexpr size_t kRowBlock = 96;

void MatMulRows(const MatMulArgs& args, size_t begin, size_t end, size_t first_panel,
                size_t panels) {
  const size_t tiles = RowTiles(end - begin);
  for (size_t tile = 0; tile < tiles; ++tile) {
    const size_t r0 = begin + TileBegin(end - begin, tiles, tile);
    const size_t r1 = begin + TileBegin(end - begin, tiles, tile + 1);
    const float* a[kMaxRows];
    float* out[kMaxRows];
    for (size_t r = r0; r < r1; ++r) {
      a[r - r0] = args.a.row(r);
      out[r - r0] = args.out + r * args.out_stride + first_panel * kPanel;
    }
    TileArgs multiply = {};
    multiply.a = a;
    multiply.k = args.w->k();
    multiply.blocks = 1;
    multiply.b = args.w->panel(first_panel);
    multiply.panel_stride = args.w->k() * kPanel;
    multiply.out = out;
    multiply.bias = args.bias == nullptr ? nullptr : args.bias + first_panel * kPanel;
    multiply.ahead = AheadOf(tile, panels * multiply.panel_stride, multiply.panel_stride);
    MultiplyPanels(r1 - r0, panels, multiply);
    if (args.activation == Activation::kNone) continue;
    for (size_t r = r0; r < r1; ++r) {
      ActivateRow(args.activation, out[r - r0], panels * kPanel);
    }
  }
}

void MatMulImpl(const MatMulArgs& args) {
  const size_t blocks = (args.rows + kRowBlock - 1) / kRowBlock;
  const size_t last_panel = args.first_panel + args.panels;
  for (size_t block = 0; block < blocks; ++block) {
    const size_t begin = args.rows * block / blocks;
    const size_t end = args.rows * (block + 1) / blocks;
    // Weights are read once per row block: a few panels stay in the cache for all of its tiles.
    const size_t step = HWY_MAX(
        2, TilePanels(static_cast<int>(HWY_MIN((end - begin + RowTiles(end - begin) - 1) /
                                                   HWY_MAX(size_t{1}, RowTiles(end - begin)),
                                               size_t{kMaxRows}))));
    for (size_t panel = args.first_panel; panel < last_panel; panel += step) {
      MatMulRows(args, begin, end, panel, HWY_MIN(step, last_panel - panel));
    }
  }
}

}  // namespace dimmer::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dimmer {

HWY_EXPORT(MatMulImpl);

void MatMul(const MatMulArgs& args) { HWY_DYNAMIC_DISPATCH(MatMulImpl)(args); }

}  // namespace dimmer
#endif  // HWY_ONCE
