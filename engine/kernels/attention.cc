#include "engine/kernels/attention.h"

#include "engine/kernels/hwy_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/kernels/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "engine/kernels/micro_kernel-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace dimmer::HWY_NAMESPACE {

// K^T as a packed matrix [tokens, head_dim].
void PackKeys(const AttentionArgs& args, float* packed) {
  const size_t padded = PaddedWidth(args.tokens);
  for (size_t t = 0; t < padded; ++t) {
    float* column = packed + t / kPanel * args.head_dim * kPanel + t % kPanel;
    const float* key = args.k + t * args.stride;
    const bool real = t < args.tokens;
    for (size_t c = 0; c < args.head_dim; ++c) column[c * kPanel] = real ? key[c] : 0.0f;
  }
}

// V as a packed matrix [head_dim, tokens].
void PackValues(const AttentionArgs& args, float* packed) {
  const size_t panels = Panels(args.head_dim);
  for (size_t t = 0; t < args.tokens; ++t) {
    const float* value = args.v + t * args.stride;
    for (size_t p = 0; p < panels; ++p) {
      float* row = packed + (p * args.tokens + t) * kPanel;
      const size_t columns = HWY_MIN(kPanel, args.head_dim - p * kPanel);
      for (size_t c = 0; c < columns; ++c) row[c] = value[p * kPanel + c];
      for (size_t c = columns; c < kPanel; ++c) row[c] = 0.0f;
    }
  }
}

// row[0:count] = exp(scale * (row - max)); returns 1 / their sum. The order of the sum depends on
// `count` alone.
HWY_INLINE float ExpRow(float* row, size_t count, float scale) {
  const FloatTag t;
  const size_t padded = PaddedWidth(count);
  const FloatVec lowest = hn::Set(t, -3.0e38f);
  FloatVec max = lowest;
  for (size_t i = 0; i < padded; i += kLanes) {
    FloatVec x = hn::LoadU(t, row + i);
    if (i + kLanes > count) {
      x = hn::IfThenElse(hn::FirstN(t, i < count ? count - i : 0), x, lowest);
      hn::StoreU(x, t, row + i);
    }
    max = hn::Max(max, x);
  }
  max = hn::MaxOfLanes(t, max);
  const FloatVec factor = hn::Set(t, scale);
  FloatVec sum = hn::Zero(t);
  for (size_t i = 0; i < padded; i += kLanes) {
    const FloatVec shifted = hn::Mul(hn::Sub(hn::LoadU(t, row + i), max), factor);
    const FloatVec e = hn::Exp(t, hn::Max(shifted, hn::Set(t, -100.0f)));
    hn::StoreU(e, t, row + i);
    if (i + kLanes <= count) {
      sum = hn::Add(sum, e);
    } else if (i < count) {
      sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(t, count - i), e));
    }
  }
  return 1.0f / hn::GetLane(hn::SumOfLanes(t, sum));
}

struct HeadScratch {
  float* keys;
  float* values;
  float* scores;  // [kMaxRows, PaddedWidth(tokens)]
  float* rows;    // [kMaxRows, PaddedWidth(head_dim)]
  const float* zeros;
};

void AttendRows(const AttentionArgs& args, const HeadScratch& scratch, size_t begin, size_t count) {
  const size_t padded = PaddedWidth(args.tokens);
  const size_t width = PaddedWidth(args.head_dim);
  const float* a[kMaxRows];
  float* out[kMaxRows];
  float inverse[kMaxRows];
  for (size_t r = 0; r < count; ++r) {
    a[r] = args.q + (begin + r) * args.stride;
    out[r] = scratch.scores + r * padded;
  }
  TileArgs multiply = {};
  multiply.a = a;
  multiply.k = args.head_dim;
  multiply.blocks = 1;
  multiply.b = scratch.keys;
  multiply.panel_stride = args.head_dim * kPanel;
  multiply.out = out;
  multiply.bias = scratch.zeros;
  MultiplyPanels(count, Panels(args.tokens), multiply);
  for (size_t r = 0; r < count; ++r) {
    inverse[r] = ExpRow(out[r], args.tokens, args.scale);
    a[r] = out[r];
    out[r] = scratch.rows + r * width;
  }
  multiply.k = args.tokens;
  multiply.b = scratch.values;
  multiply.panel_stride = args.tokens * kPanel;
  MultiplyPanels(count, Panels(args.head_dim), multiply);
  for (size_t r = 0; r < count; ++r) {
    float* to = args.out + (begin + r) * args.out_stride;
    for (size_t c = 0; c < args.head_dim; ++c) to[c] = out[r][c] * inverse[r];
  }
}

void AttendHeadImpl(const AttentionArgs& args, float* memory) {
  const size_t padded = PaddedWidth(args.tokens);
  const size_t width = PaddedWidth(args.head_dim);
  HeadScratch scratch;
  scratch.keys = memory;
  scratch.values = scratch.keys + padded * args.head_dim;
  scratch.scores = scratch.values + width * args.tokens;
  scratch.rows = scratch.scores + kMaxRows * padded;
  float* zeros = scratch.rows + kMaxRows * width;
  scratch.zeros = zeros;
  for (size_t i = 0; i < HWY_MAX(padded, width); ++i) zeros[i] = 0.0f;
  PackKeys(args, scratch.keys);
  PackValues(args, scratch.values);
  const size_t tiles = RowTiles(args.tokens);
  for (size_t tile = 0; tile < tiles; ++tile) {
    const size_t begin = TileBegin(args.tokens, tiles, tile);
    AttendRows(args, scratch, begin, TileBegin(args.tokens, tiles, tile + 1) - begin);
  }
}

}  // namespace dimmer::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dimmer {

size_t AttentionScratch(size_t tokens, size_t head_dim) {
  constexpr size_t kRows = 12;  // of the highest tile
  const size_t padded = PaddedWidth(tokens);
  const size_t width = PaddedWidth(head_dim);
  return padded * head_dim + width * tokens + kRows * (padded + width) + padded + width;
}

HWY_EXPORT(AttendHeadImpl);

void AttendHead(const AttentionArgs& args, float* scratch) {
  HWY_DYNAMIC_DISPATCH(AttendHeadImpl)(args, scratch);
}

}  // namespace dimmer
#endif  // HWY_ONCE
