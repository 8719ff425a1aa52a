#include "engine/kernels/micro_kernel.h"

#include "engine/kernels/hwy_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/kernels/micro_kernel.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "engine/kernels/vector-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace dimmer::HWY_NAMESPACE {

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

HWY_INLINE FloatVec LoadWeights(FloatTag tag, const float* from) { return hn::Load(tag, from); }

template <typename T>
HWY_INLINE FloatVec LoadWeights(FloatTag tag, const T* from) {
  const hn::Rebind<T, FloatTag> narrow;
  return hn::PromoteTo(tag, hn::Load(narrow, from));
}

// T: float, or a 16-bit format that is widened to it.
template <typename T, int kRows, int kPanels>
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
    const T* b = static_cast<const T*>(args.b) + block * args.block_stride;
    end += args.k;
    for (; i < end; ++i) {
      FloatVec column[kColumns];
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; ++c) {
        column[c] = LoadWeights(tag, b + (c / kVecs) * panel_stride + (c % kVecs) * kLanes);
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

template <typename T, int kRows, int kPanels>
constexpr TileFn TileOrNull() {
  if constexpr (kPanels <= TilePanels(kRows) && kRows <= kMaxRows) {
    return &MultiplyTile<T, kRows, kPanels>;
  } else {
    return nullptr;
  }
}

// [rows - 1][log2(panels)]
#define DIMMER_TILES(r) \
  { TileOrNull<T, r, 1>(), TileOrNull<T, r, 2>(), TileOrNull<T, r, 4>(), TileOrNull<T, r, 8>() }
template <typename T>
constexpr TileFn kTiles[12][4] = {DIMMER_TILES(1),  DIMMER_TILES(2),  DIMMER_TILES(3),
                                  DIMMER_TILES(4),  DIMMER_TILES(5),  DIMMER_TILES(6),
                                  DIMMER_TILES(7),  DIMMER_TILES(8),  DIMMER_TILES(9),
                                  DIMMER_TILES(10), DIMMER_TILES(11), DIMMER_TILES(12)};
#undef DIMMER_TILES

template <typename T>
HWY_INLINE void MultiplyPanelsOf(size_t rows, size_t panels, const TileArgs& args) {
  TileArgs tile = args;
  int log2 = 0;
  while ((2 << log2) <= TilePanels(static_cast<int>(rows))) ++log2;
  while (panels > 0) {
    while ((size_t{1} << log2) > panels) --log2;
    const size_t step = size_t{1} << log2;
    kTiles<T>[rows - 1][log2](tile);
    panels -= step;
    tile.b = static_cast<const T*>(tile.b) + step * tile.panel_stride;
    if (tile.bias != nullptr) tile.bias += step * kPanel;
    tile.column += step * kPanel;
  }
}

void MultiplyPanelsImpl(size_t rows, size_t panels, const TileArgs& args) {
  switch (args.format) {
    case WeightFormat::kF32:
      return MultiplyPanelsOf<float>(rows, panels, args);
    case WeightFormat::kF16:
      return MultiplyPanelsOf<hwy::float16_t>(rows, panels, args);
    case WeightFormat::kBF16:
      return MultiplyPanelsOf<hwy::bfloat16_t>(rows, panels, args);
  }
}

size_t TileRowsImpl() { return kMaxRows; }

}  // namespace dimmer::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dimmer {

HWY_EXPORT(MultiplyPanelsImpl);
HWY_EXPORT(TileRowsImpl);

void MultiplyPanels(size_t rows, size_t panels, const TileArgs& args) {
  HWY_DYNAMIC_DISPATCH(MultiplyPanelsImpl)(rows, panels, args);
}
size_t TileRows() { return HWY_DYNAMIC_DISPATCH(TileRowsImpl)(); }

}  // namespace dimmer
#endif  // HWY_ONCE
