#include "engine/kernels/attention.h"

#include "engine/kernels/hwy_targets.h"
#include "engine/kernels/micro_kernel.h"
#include "engine/kernels/packed_matrix.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/kernels/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "engine/kernels/softmax-inl.h"
#include "engine/kernels/vector-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace dimmer::HWY_NAMESPACE {

// Four keys' columns [0, 4) at `key`, transposed: packed[c * 16 + 0..3] = keys' column c.
HWY_INLINE void TransposeFour(const float* const key[4], float* packed) {
#if HWY_TARGET == HWY_SCALAR
  for (size_t c = 0; c < 4; ++c) {
    for (size_t t = 0; t < 4; ++t) packed[c * kPanel + t] = key[t][c];
  }
#else
  const hn::Full128<float> four;
  const hn::Repartition<uint64_t, decltype(four)> two;
  const auto row0 = hn::LoadU(four, key[0]);
  const auto row1 = hn::LoadU(four, key[1]);
  const auto row2 = hn::LoadU(four, key[2]);
  const auto row3 = hn::LoadU(four, key[3]);
  const auto low01 = hn::BitCast(two, hn::InterleaveLower(four, row0, row1));
  const auto low23 = hn::BitCast(two, hn::InterleaveLower(four, row2, row3));
  const auto high01 = hn::BitCast(two, hn::InterleaveUpper(four, row0, row1));
  const auto high23 = hn::BitCast(two, hn::InterleaveUpper(four, row2, row3));
  hn::StoreU(hn::BitCast(four, hn::InterleaveLower(two, low01, low23)), four, packed);
  hn::StoreU(hn::BitCast(four, hn::InterleaveUpper(two, low01, low23)), four, packed + kPanel);
  hn::StoreU(hn::BitCast(four, hn::InterleaveLower(two, high01, high23)), four,
             packed + 2 * kPanel);
  hn::StoreU(hn::BitCast(four, hn::InterleaveUpper(two, high01, high23)), four,
             packed + 3 * kPanel);
#endif
}

// K^T as a packed matrix [tokens, head_dim]. Columns past the last token repeat it: their scores
// are not used.
void PackKeys(const AttentionArgs& args, float* packed) {
  const size_t padded = PaddedWidth(args.tokens);
  for (size_t t = 0; t < padded; t += 4) {
    float* column = packed + t / kPanel * args.head_dim * kPanel + t % kPanel;
    const float* key[4];
    for (size_t i = 0; i < 4; ++i) {
      key[i] = args.k + HWY_MIN(t + i, args.tokens - 1) * args.stride;
    }
    size_t c = 0;
    for (; c + 4 <= args.head_dim; c += 4) {
      TransposeFour(key, column + c * kPanel);
      for (const float*& k : key) k += 4;
    }
    for (; c < args.head_dim; ++c) {
      for (size_t i = 0; i < 4; ++i) column[c * kPanel + i] = *key[i]++;
    }
  }
}

// V as a packed matrix [head_dim, tokens].
void PackValues(const AttentionArgs& args, float* packed) {
  const FloatTag tag;
  const size_t panels = Panels(args.head_dim);
  for (size_t p = 0; p < panels; ++p) {
    const float* value = args.v + p * kPanel;
    float* row = packed + p * args.tokens * kPanel;
    const size_t columns = HWY_MIN(kPanel, args.head_dim - p * kPanel);
    for (size_t t = 0; t < args.tokens; ++t, value += args.stride, row += kPanel) {
      if (columns == kPanel) {
        for (size_t c = 0; c < kPanel; c += kLanes) {
          hn::Store(hn::LoadU(tag, value + c), tag, row + c);
        }
      } else {
        for (size_t c = 0; c < kPanel; ++c) row[c] = c < columns ? value[c] : 0.0f;
      }
    }
  }
}

struct HeadScratch {
  float* keys;
  float* values;
  float* scores;  // [kMaxTileRows, PaddedWidth(tokens)]
  float* rows;    // [kMaxTileRows, PaddedWidth(head_dim)]
  const float* zeros;
};

void AttendRows(const AttentionArgs& args, const HeadScratch& scratch, size_t begin, size_t count) {
  const size_t padded = PaddedWidth(args.tokens);
  const size_t width = PaddedWidth(args.head_dim);
  const float* a[kMaxTileRows];
  float* out[kMaxTileRows];
  float inverse[kMaxTileRows];
  for (size_t r = 0; r < count; ++r) {
    a[r] = args.q + (begin + r) * args.stride;
    out[r] = scratch.scores + r * padded;
  }
  TileArgs multiply = {};
  multiply.a = a;
  multiply.k = args.head_dim;
  multiply.blocks = 1;
  multiply.b = scratch.keys;
  multiply.format = WeightFormat::kF32;
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
    ScaleRow(out[r], args.head_dim, inverse[r], args.out + (begin + r) * args.out_stride);
  }
}

void AttendHeadImpl(const AttentionArgs& args, float* memory) {
  const size_t padded = PaddedWidth(args.tokens);
  const size_t width = PaddedWidth(args.head_dim);
  HeadScratch scratch;
  scratch.keys = memory;
  scratch.values = scratch.keys + padded * args.head_dim;
  scratch.scores = scratch.values + width * args.tokens;
  scratch.rows = scratch.scores + kMaxTileRows * padded;
  float* zeros = scratch.rows + kMaxTileRows * width;
  scratch.zeros = zeros;
  for (size_t i = 0; i < HWY_MAX(padded, width); ++i) zeros[i] = 0.0f;
  PackKeys(args, scratch.keys);
  PackValues(args, scratch.values);
  ForEachTile(args.tokens, [&](const RowTile& tile)
                               HWY_ATTR { AttendRows(args, scratch, tile.begin, tile.count); });
}

}  // namespace dimmer::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dimmer {

size_t AttentionScratch(size_t tokens, size_t head_dim) {
  const size_t padded = PaddedWidth(tokens);
  const size_t width = PaddedWidth(head_dim);
  return padded * head_dim + width * tokens + kMaxTileRows * (padded + width) + padded + width;
}

HWY_EXPORT(AttendHeadImpl);

void AttendHead(const AttentionArgs& args, float* scratch) {
  HWY_DYNAMIC_DISPATCH(AttendHeadImpl)(args, scratch);
}

}  // namespace dimmer
#endif  // HWY_ONCE
