// How layers cut their work for the threads of a pool. Any cut gives the same bits (see
// kernels/micro_kernel.h): these numbers are about speed alone.
#ifndef DIMMER_ENGINE_LAYERS_PARTITION_H_
#define DIMMER_ENGINE_LAYERS_PARTITION_H_

#include <algorithm>
#include <cstddef>

namespace dimmer {

struct Range {
  size_t begin;
  size_t end;
  size_t size() const { return end - begin; }
};

// Part `index` of `parts` nearly equal ones of [0, count).
inline Range RangeOf(size_t count, size_t parts, size_t index) {
  return {count * index / parts, count * (index + 1) / parts};
}

// From this many rows per thread on, rows are split; below, columns or experts.
inline constexpr size_t kRowsToSplit = 24;

// Blocks of some 96 rows: long enough to use weights well while they are in the cache, short enough
// to balance threads.
inline size_t RowBlocks(size_t rows, size_t threads) {
  constexpr size_t kBlock = 96;
  if (threads == 1) return 1;
  const size_t blocks = std::max<size_t>(1, rows / kBlock);
  return (blocks + threads - 1) / threads * threads;
}

// Column blocks: a few per thread.
inline size_t PanelBlocks(size_t threads) { return threads == 1 ? 1 : 2 * threads; }

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_PARTITION_H_
