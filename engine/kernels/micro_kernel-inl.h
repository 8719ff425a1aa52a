// The register tile that all matrix products share, per Highway target: up to kMaxRows rows of A
// times a few panels of 16 packed columns.
//
// Order of summation, on which the engine's promises rest: every output element is ONE fp32
// accumulator that starts from a given value and takes its products with k ascending, fused where
// the target has FMA. Tile height and width only choose which elements are computed together, and
// an accumulator that is stored and loaded again is the same number, so the bits of a result depend
// on neither.

#if defined(DIMMER_ENGINE_KERNELS_MICRO_KERNEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DIMMER_ENGINE_KERNELS_MICRO_KERNEL_INL_H_
#undef DIMMER_ENGINE_KERNELS_MICRO_KERNEL_INL_H_
#else
#define DIMMER_ENGINE_KERNELS_MICRO_KERNEL_INL_H_
#endif

#include <cstddef>

#include "engine/kernels/packed_matrix.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace dimmer::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, kPanel>;
using FloatVec = hn::Vec<FloatTag>;

constexpr size_t kLanes = hn::MaxLanes(FloatTag());
constexpr int kVecs = static_cast<int>(kPanel / kLanes);  // vectors per panel
// Of 32 (AVX-512) or 16 vector registers, what is left beside the panel's vectors and a broadcast.
constexpr int kAccumulators = HWY_TARGET <= HWY_AVX3 ? 24 : 12;
constexpr int kMaxRows = kVecs == 1 ? 12 : HWY_MAX(1, kAccumulators / kVecs);
constexpr int kMaxPanels = 8;

// The widest tile (1, 2, 4 or 8 panels) whose accumulators fit beside `rows` rows. Low tiles are
// wide, or the latency of the additions would show.
constexpr int TilePanels(int rows) {
  int panels = 1;
  while (panels < kMaxPanels && rows * 2 * panels * kVecs <= kAccumulators) panels *= 2;
  return panels;
}

struct TileArgs {
  // A: kRows rows; k of them in `blocks` pieces that are contiguous in A.
  const float* const* a;
  size_t k;       // per block
  size_t blocks;  // 1, or the number of consecutive experts
  // Packed columns: panel p of block n at b + n * block_stride + p * panel_stride.
  const float* b;
  size_t panel_stride;
  size_t block_stride;
  // Output rows; the tile starts at `column` of each.
  float* const* out;
  size_t column;
  // [panels * 16], the accumulators' first value; null: what stands in `out`.
  const float* bias;
  // Weights are fetched ahead of their use, at this distance (floats) from the first panel; 0: not.
  size_t ahead;
};

template <int kRows, int kPanels>
HWY_NOINLINE void MultiplyTile(const TileArgs& args) {
  constexpr int kColumns = kPanels * kVecs;
  const FloatTag tag;
  FloatVec sum[kRows][kColumns];
  const float* a[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    a[r] = args.a[r];
    const float* first = args.bias != nullptr ? args.bias : args.out[r] + args.column;
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) sum[r][c] = hn::LoadU(tag, first + c * kLanes);
  }
  const size_t panel_stride = args.panel_stride;
  const size_t ahead = args.ahead;
  size_t i = 0;
  size_t end = 0;
  for (size_t block = 0; block < args.blocks; ++block) {
    const float* b = args.b + block * args.block_stride;
    end += args.k;
    for (; i < end; ++i) {
      FloatVec column[kColumns];
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; ++c) {
        column[c] = hn::Load(tag, b + (c / kVecs) * panel_stride + (c % kVecs) * kLanes);
      }
      // Into the second-level cache; past the weights' end it does nothing.
      __builtin_prefetch(b + ahead, 0, 2);
      b += kPanel;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const FloatVec value = hn::Set(tag, a[r][i]);
#pragma GCC unroll 16
        for (int c = 0; c < kColumns; ++c) sum[r][c] = hn::MulAdd(value, column[c], sum[r][c]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    float* out = args.out[r] + args.column;
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) hn::StoreU(sum[r][c], tag, out + c * kLanes);
  }
}

using TileFn = void (*)(const TileArgs&);

template <int kRows, int kPanels>
constexpr TileFn TileOrNull() {
  if constexpr (kPanels <= TilePanels(kRows) && kRows <= kMaxRows) {
    return &MultiplyTile<kRows, kPanels>;
  } else {
    return nullptr;
  }
}

// [rows - 1][log2(panels)]
#define DIMMER_TILES(r) \
  { TileOrNull<r, 1>(), TileOrNull<r, 2>(), TileOrNull<r, 4>(), TileOrNull<r, 8>() }
constexpr TileFn kTiles[12][4] = {DIMMER_TILES(1),  DIMMER_TILES(2),  DIMMER_TILES(3),
                                  DIMMER_TILES(4),  DIMMER_TILES(5),  DIMMER_TILES(6),
                                  DIMMER_TILES(7),  DIMMER_TILES(8),  DIMMER_TILES(9),
                                  DIMMER_TILES(10), DIMMER_TILES(11), DIMMER_TILES(12)};
#undef DIMMER_TILES

// `rows` <= kMaxRows rows times `panels` panels, in tiles.
HWY_INLINE void MultiplyPanels(size_t rows, size_t panels, const TileArgs& args) {
  TileArgs tile = args;
  int log2 = 0;
  while ((2 << log2) <= TilePanels(static_cast<int>(rows))) ++log2;
  while (panels > 0) {
    while ((size_t{1} << log2) > panels) --log2;
    const size_t step = size_t{1} << log2;
    kTiles[rows - 1][log2](tile);
    panels -= step;
    tile.b += step * tile.panel_stride;
    if (tile.bias != nullptr) tile.bias += step * kPanel;
    tile.column += step * kPanel;
  }
}

// Weights from memory arrive too slowly for their first tile of rows, and later tiles find them in
// the cache: so the first two tiles each fetch one of every two panels of what is `distance` floats
// on.
HWY_INLINE size_t AheadOf(size_t tile, size_t distance, size_t panel_stride) {
  return tile < 2 ? distance + tile * panel_stride : 0;
}

// Rows are cut into tiles of nearly equal height: 13 rows run as 7 + 6, not 12 + 1.
HWY_INLINE size_t RowTiles(size_t rows) { return (rows + kMaxRows - 1) / kMaxRows; }
HWY_INLINE size_t TileBegin(size_t rows, size_t tiles, size_t tile) { return rows * tile / tiles; }

}  // namespace dimmer::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
