#include "engine/layers/linear.h"

#include <algorithm>

#include "engine/kernels/rowwise.h"
#include "engine/layers/partition.h"

namespace dimmer {
namespace {

// One product over the pool: many rows are split into blocks of rows; few rows into panels, so that
// the weights are read once.
void Multiply(MatMulArgs args, ThreadPool& pool) {
  const size_t panels = args.w->panels();
  const bool by_rows = args.rows >= kRowsToSplit * pool.threads();
  const size_t blocks = by_rows ? RowBlocks(args.rows, pool.threads())
                                : std::min(PanelBlocks(pool.threads()), (panels + 1) / 2);
  pool.ParallelFor(blocks, [&](size_t block, size_t) {
    MatMulArgs part = args;
    if (by_rows) {
      const Range rows = RangeOf(args.rows, blocks, block);
      part.rows = rows.size();
      part.out += rows.begin * args.out_stride;
      if (args.a.index != nullptr) {
        part.a.index += rows.begin;
      } else {
        part.a.data += rows.begin * args.a.stride;
      }
      part.panels = panels;
    } else {
      // Pairs of panels stay together: they share the broadcast of A.
      const Range pairs = RangeOf((panels + 1) / 2, blocks, block);
      part.first_panel = 2 * pairs.begin;
      part.panels = std::min(2 * pairs.end, panels) - part.first_panel;
    }
    MatMul(part);
  });
}

}  // namespace

void Linear::Set(size_t first, std::span<const float> weight, std::span<const float> bias) {
  weight_.PackColumns(first, weight);
  std::copy(bias.begin(), bias.end(), bias_.data() + first);
}

void Linear::Apply(const RowsView& a, size_t rows, Activation activation, float* out,
                   size_t out_stride, ThreadPool& pool) const {
  MatMulArgs args;
  args.a = a;
  args.rows = rows;
  args.w = &weight_;
  args.bias = bias_.data();
  args.activation = activation;
  args.out = out;
  args.out_stride = out_stride;
  Multiply(args, pool);
}

void Linear::ApplyAndAdd(const RowsView& a, size_t rows, const float* residual, float* out,
                         size_t out_stride, ThreadPool& pool) const {
  for (size_t r = 0; r < rows; ++r) {
    AddRow(residual + r * out_stride, bias_.data(), outputs(), out + r * out_stride);
  }
  MatMulArgs args;
  args.a = a;
  args.rows = rows;
  args.w = &weight_;
  args.bias = nullptr;  // onto what stands in `out`
  args.out = out;
  args.out_stride = out_stride;
  Multiply(args, pool);
}

}  // namespace dimmer
