// Causal self-attention of the tokens that a step computes, over all earlier ones of their
// sequences, whose keys and values are kept in pages. Query heads may share key and value heads
// (grouped-query attention, Ainslie et al. 2023).
//
// Thread safety: immutable once made; Apply writes the pages of the sequences in its batch.
#ifndef DIMMER_ENGINE_LAYERS_CAUSAL_ATTENTION_H_
#define DIMMER_ENGINE_LAYERS_CAUSAL_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "engine/layers/kv_cache.h"
#include "engine/layers/linear.h"
#include "engine/layers/rotary.h"
#include "engine/layers/self_attention.h"
#include "engine/layers/workspace.h"
#include "engine/util/thread_pool.h"

namespace dimmer {

// Consecutive tokens of one sequence in a step.
struct CausalRows {
  SequenceRows rows;
  uint64_t position = 0;        // of the first, in its sequence
  const KvPages* kv = nullptr;  // has room for all of them
};

class CausalAttention {
 public:
  CausalAttention() = default;
  // `kv_heads` divides `heads`.
  CausalAttention(size_t heads, size_t kv_heads, size_t head_dim, std::optional<Rotary> rotary)
      : heads_(heads), kv_heads_(kv_heads), head_dim_(head_dim), rotary_(std::move(rotary)) {}

  // To be set by the loader. Q, K and V run as one product: outputs [0, heads * head_dim), then
  // kv_heads * head_dim each.
  Linear& qkv() { return qkv_; }
  Linear& output() { return output_; }

  // out [tokens, d] = residual + O(attention(z)), all with stride PaddedWidth(d); residual may be
  // out. Keys and values of the rows are stored as layer `layer` of their pages. A row's bits
  // depend on its sequence alone, not on where its prompt was cut.
  void Apply(const float* z, const float* residual, std::span<const CausalRows> sequences,
             size_t layer, float* out, ThreadPool& pool, Workspace& workspace) const;

  size_t bytes() const { return qkv_.bytes() + output_.bytes(); }
  uint64_t token_flops() const { return qkv_.flops() + output_.flops(); }
  uint64_t pair_flops() const { return 4 * uint64_t{heads_} * head_dim_; }  // scores and values

 private:
  void Store(const CausalRows& sequence, size_t layer, float* qkv, size_t stride,
             std::span<float> angles) const;
  void Attend(const CausalRows& sequence, size_t row, size_t head, KvView kv, const float* q,
              float* out, float* scratch) const;

  size_t heads_ = 0;
  size_t kv_heads_ = 0;
  size_t head_dim_ = 0;
  std::optional<Rotary> rotary_;
  Linear qkv_;
  Linear output_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_CAUSAL_ATTENTION_H_
