#include "engine/kernels/matmul.h"

#include <algorithm>

#include "engine/kernels/micro_kernel.h"
#include "engine/kernels/rowwise.h"

namespace dimmer {
namespace {

// Rows whose A (at k = 384) and C stay in the second-level cache while all panels pass.
constexpr size_t kRowBlock = 96;
// Panels that stay in the cache while all tiles of a row block pass.
constexpr size_t kPanelStep = 2;

// Rows [begin, end) times a few panels.
void MultiplyBlock(const MatMulArgs& args, size_t begin, size_t end, size_t first_panel,
                   size_t panels) {
  ForEachTile(end - begin, [&](const RowTile& tile) {
    const float* a[kMaxTileRows];
    float* out[kMaxTileRows];
    for (size_t r = 0; r < tile.count; ++r) {
      const size_t row = begin + tile.begin + r;
      a[r] = args.a.row(row);
      out[r] = args.out + row * args.out_stride;
    }
    TileArgs multiply = {};
    multiply.a = a;
    multiply.k = args.w->k();
    multiply.blocks = 1;
    multiply.b = args.w->panel(first_panel);
    multiply.format = args.w->format();
    multiply.panel_stride = args.w->k() * kPanel;
    multiply.out = out;
    multiply.column = first_panel * kPanel;
    multiply.bias = args.bias == nullptr ? nullptr : args.bias + first_panel * kPanel;
    multiply.ahead = AheadOf(tile, panels * multiply.panel_stride, multiply.panel_stride);
    MultiplyPanels(tile.count, panels, multiply);
    if (args.activation == Activation::kNone) return;
    for (size_t r = 0; r < tile.count; ++r) {
      Activate(args.activation, out[r] + first_panel * kPanel, panels * kPanel);
    }
  });
}

}  // namespace

void MatMul(const MatMulArgs& args) {
  const size_t blocks = (args.rows + kRowBlock - 1) / kRowBlock;
  const size_t last_panel = args.first_panel + args.panels;
  for (size_t block = 0; block < blocks; ++block) {
    const size_t begin = args.rows * block / blocks;
    const size_t end = args.rows * (block + 1) / blocks;
    // The widest tile of so few rows.
    const size_t step = end - begin < kMaxTileRows ? 4 * kPanelStep : kPanelStep;
    for (size_t panel = args.first_panel; panel < last_panel; panel += step) {
      MultiplyBlock(args, begin, end, panel, std::min(step, last_panel - panel));
    }
  }
}

}  // namespace dimmer
