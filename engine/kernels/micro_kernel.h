// The register tile that all matrix products share: up to TileRows() rows of A times packed
// columns.
//
// Order of summation, on which the engine's promises rest: every output element is ONE fp32
// accumulator that starts from a given value and takes its products with k ascending, fused where
// the target has FMA. Tile height and width only choose which elements are computed together, and
// an accumulator that is stored and loaded again is the same number, so the bits of a result depend
// on neither.
//
// Thread safety: pure functions.
#ifndef DIMMER_ENGINE_KERNELS_MICRO_KERNEL_H_
#define DIMMER_ENGINE_KERNELS_MICRO_KERNEL_H_

#include <cstddef>

#include "engine/kernels/packed_matrix.h"

namespace dimmer {

// No target's tile is higher.
inline constexpr size_t kMaxTileRows = 12;

struct TileArgs {
  // A: one pointer per row; `blocks` pieces of k values, one after the other.
  const float* const* a;
  size_t k;       // per block
  size_t blocks;  // 1, or the number of consecutive experts
  // Packed columns: panel p of block n at b + n * block_stride + p * panel_stride, in elements.
  const void* b;
  WeightFormat format;
  size_t panel_stride;
  size_t block_stride;
  // Output rows; the tile starts at `column` of each.
  float* const* out;
  size_t column;
  // [panels * 16], the accumulators' first value; null: what stands in `out`.
  const float* bias;
  // Weights are fetched ahead of their use, at this distance (elements) from the first panel; 0:
  // not.
  size_t ahead;
};

// `rows` <= TileRows() rows times `panels` panels.
void MultiplyPanels(size_t rows, size_t panels, const TileArgs& args);

// The height of this machine's tile.
size_t TileRows();

// Rows [begin, begin + count) of some more, the `index`th tile of them.
struct RowTile {
  size_t index;
  size_t begin;
  size_t count;
};

// Cuts `rows` into tiles of nearly equal height: 13 rows run as 7 + 6, not 12 + 1.
template <typename F>
void ForEachTile(size_t rows, const F& run) {
  const size_t tiles = (rows + TileRows() - 1) / TileRows();
  for (size_t t = 0; t < tiles; ++t) {
    const size_t begin = rows * t / tiles;
    run(RowTile{t, begin, rows * (t + 1) / tiles - begin});
  }
}

// Weights from memory arrive too slowly for their first tile of rows, and later tiles find them in
// the cache: so the first two tiles each fetch one of every two panels of what is `distance`
// elements on.
inline size_t AheadOf(const RowTile& tile, size_t distance, size_t panel_stride) {
  return tile.index < 2 ? distance + tile.index * panel_stride : 0;
}

}  // namespace dimmer

#endif  // DIMMER_ENGINE_KERNELS_MICRO_KERNEL_H_
