// Causal attention of single queries over keys and values that are kept in pages.
//
// A page holds kKvPageTokens = 16 consecutive tokens. Of one head it keeps the keys as a panel
// [head_dim][16 tokens], and the values as rows [16 tokens][PaddedWidth(head_dim)]: both are read
// in order, whole vectors at a time.
//
// The bits of a query's result depend on its own values, its keys and their number alone: scores
// sum the head's columns in ascending order, values are summed in four fixed interleaved parts
// (token number modulo 4), which are added in order.
//
// Thread safety: pure functions.
#ifndef DIMMER_ENGINE_KERNELS_CACHED_ATTENTION_H_
#define DIMMER_ENGINE_KERNELS_CACHED_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "engine/kernels/packed_matrix.h"

namespace dimmer {

inline constexpr size_t kKvPageTokens = kPanel;

// Floats of one head's keys, and as many of its values, in a page.
inline constexpr size_t KvHeadBlock(size_t head_dim) {
  return kKvPageTokens * PaddedWidth(head_dim);
}

// Puts one token's key and value [head_dim] of a head at `slot` of its page's blocks.
void StoreKeyValue(const float* key, const float* value, size_t head_dim, size_t slot, float* keys,
                   float* values);

// Keys and values in pages: those of tokens [16 p, 16 p + 16) begin at pages[p] * page_stride.
struct KvView {
  const float* keys = nullptr;
  const float* values = nullptr;
  const uint32_t* pages = nullptr;
  size_t page_stride = 0;  // floats
};

// out[0:head_dim] = softmax(scale * q k^T) v over `tokens` keys, at least 1.
struct CachedAttentionArgs {
  const float* q = nullptr;  // [head_dim]
  KvView kv;                 // of the head
  size_t tokens = 0;
  size_t head_dim = 0;
  float scale = 1;
  float* out = nullptr;
};

// Floats that AttendCached needs: scores, and a panel of the result.
size_t CachedAttentionScratch(size_t tokens);
void AttendCached(const CachedAttentionArgs& args, float* scratch);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_KERNELS_CACHED_ATTENTION_H_
