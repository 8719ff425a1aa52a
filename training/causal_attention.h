// Causal self-attention over packed sequences, forward and backward, in tiles of queries: the
// softmax is never stored but computed again on the way back (Dao et al. 2022).
//
// Thread safety: pure functions. Matrices are row-major fp32. Results are fixed on one machine
// type.
#ifndef DIMMER_TRAINING_CAUSAL_ATTENTION_H_
#define DIMMER_TRAINING_CAUSAL_ATTENTION_H_

#include <cstdint>

#include "training/kernels.h"

namespace dimmer {

// qkv [tokens, 3 * width]: queries, keys and values side by side, heads as in AttentionShape.
// out [tokens, width] = dropout(softmax(q k^T / sqrt(width / heads))) v over keys up to the query's
// own. log_sums [heads * tokens] keeps the logarithm of every softmax's denominator for the way
// back.
void CausalAttentionForward(const AttentionShape& shape, const Dropout& dropout, const float* qkv,
                            float* out, float* log_sums);
// Overwrites dqkv [tokens, 3 * width].
void CausalAttentionBackward(const AttentionShape& shape, const Dropout& dropout, const float* qkv,
                             const float* out, const float* log_sums, const float* dout,
                             float* dqkv);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_CAUSAL_ATTENTION_H_
