#include "engine/kernels/cached_attention.h"

#include <algorithm>

#include "engine/kernels/hwy_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/kernels/cached_attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "engine/kernels/softmax-inl.h"
#include "engine/kernels/vector-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace dimmer::HWY_NAMESPACE {

// The values of tokens t, t + 4, t + 8 ... are summed together: four additions are under way at the
// same time.
constexpr size_t kParts = 4;

// Scores of the 16 tokens of each of kPages pages.
template <int kPages>
HWY_INLINE void ScorePages(const CachedAttentionArgs& args, size_t first, float* scores) {
  const FloatTag tag;
  const float* keys[kPages];
  FloatVec sum[kPages][kVecs];
#pragma GCC unroll 16
  for (int p = 0; p < kPages; ++p) {
    keys[p] = args.kv.keys + args.kv.pages[first + p] * args.kv.page_stride;
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) sum[p][v] = hn::Zero(tag);
  }
  for (size_t c = 0; c < args.head_dim; ++c) {
    const FloatVec value = hn::Set(tag, args.q[c]);
#pragma GCC unroll 16
    for (int p = 0; p < kPages; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        sum[p][v] = hn::MulAdd(value, hn::Load(tag, keys[p] + c * kPanel + v * kLanes), sum[p][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < kPages; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      hn::StoreU(sum[p][v], tag, scores + (first + p) * kPanel + v * kLanes);
    }
  }
}

// One panel of the output: out[0:16] = the sum over all tokens of share * value.
HWY_INLINE void SumPanel(const CachedAttentionArgs& args, const float* shares, size_t panel,
                         float* out) {
  const FloatTag tag;
  const size_t stride = PaddedWidth(args.head_dim);
  FloatVec sum[kParts][kVecs];
#pragma GCC unroll 4
  for (auto& part : sum) {
#pragma GCC unroll 4
    for (FloatVec& vec : part) vec = hn::Zero(tag);
  }
  for (size_t first = 0; first < args.tokens; first += kKvPageTokens) {
    const size_t page = args.kv.pages[first / kKvPageTokens];
    const float* value = args.kv.values + page * args.kv.page_stride + panel * kPanel;
    const size_t count = HWY_MIN(kKvPageTokens, args.tokens - first);
    size_t t = 0;
    for (; t + kParts <= count; t += kParts) {
#pragma GCC unroll 4
      for (size_t part = 0; part < kParts; ++part) {
        const FloatVec share = hn::Set(tag, shares[first + t + part]);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) {
          sum[part][v] = hn::MulAdd(share, hn::Load(tag, value + (t + part) * stride + v * kLanes),
                                    sum[part][v]);
        }
      }
    }
#pragma GCC unroll 4
    for (size_t part = 0; part < kParts; ++part) {
      if (t + part >= count) break;
      const FloatVec share = hn::Set(tag, shares[first + t + part]);
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        sum[part][v] = hn::MulAdd(share, hn::Load(tag, value + (t + part) * stride + v * kLanes),
                                  sum[part][v]);
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVecs; ++v) {
    const FloatVec low = hn::Add(sum[0][v], sum[1][v]);
    const FloatVec high = hn::Add(sum[2][v], sum[3][v]);
    hn::StoreU(hn::Add(low, high), tag, out + v * kLanes);
  }
}

void AttendCachedImpl(const CachedAttentionArgs& args, float* scratch) {
  float* scores = scratch;
  float* panel = scratch + PaddedWidth(args.tokens);
  const size_t pages = Panels(args.tokens);
  size_t page = 0;
  for (; page + 4 <= pages; page += 4) {
    ScorePages<4>(args, page, scores);
  }
  for (; page < pages; ++page) {
    ScorePages<1>(args, page, scores);
  }
  const float inverse = ExpRow(scores, args.tokens, args.scale);
  for (size_t p = 0; p < Panels(args.head_dim); ++p) {
    SumPanel(args, scores, p, panel);
    const size_t columns = HWY_MIN(kPanel, args.head_dim - p * kPanel);
    ScaleRow(panel, columns, inverse, args.out + p * kPanel);
  }
}

}  // namespace dimmer::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dimmer {

void StoreKeyValue(const float* key, const float* value, size_t head_dim, size_t slot, float* keys,
                   float* values) {
  for (size_t c = 0; c < head_dim; ++c) keys[c * kPanel + slot] = key[c];
  std::copy_n(value, head_dim, values + slot * PaddedWidth(head_dim));
}

size_t CachedAttentionScratch(size_t tokens) { return PaddedWidth(tokens) + kPanel; }

HWY_EXPORT(AttendCachedImpl);

void AttendCached(const CachedAttentionArgs& args, float* scratch) {
  HWY_DYNAMIC_DISPATCH(AttendCachedImpl)(args, scratch);
}

}  // namespace dimmer
#endif  // HWY_ONCE
