// Multi-head self-attention over a batch of sequences of different lengths, without padding.
//
// Thread safety: immutable once made.
#ifndef DIMMER_ENGINE_LAYERS_SELF_ATTENTION_H_
#define DIMMER_ENGINE_LAYERS_SELF_ATTENTION_H_

#include <cstddef>
#include <span>

#include "engine/layers/linear.h"
#include "engine/layers/workspace.h"
#include "engine/util/thread_pool.h"

namespace dimmer {

// The rows of one sequence in a batch's [tokens, d] matrix.
struct SequenceRows {
  size_t first = 0;
  size_t count = 0;
};

class SelfAttention {
 public:
  SelfAttention() = default;
  explicit SelfAttention(size_t heads) : heads_(heads) {}

  // To be set by the loader. Q, K and V run as one product: outputs [0, d), [d, 2d), [2d, 3d) of
  // `qkv`.
  Linear& qkv() { return qkv_; }
  Linear& output() { return output_; }

  // out [tokens, d] = x + O(attention(x)), all with stride PaddedWidth(d). Every token of a
  // sequence attends to all of it.
  void Apply(const float* x, std::span<const SequenceRows> sequences, float* out, ThreadPool& pool,
             Workspace& workspace) const;

  size_t bytes() const { return qkv_.bytes() + output_.bytes(); }
  uint64_t token_flops() const { return qkv_.flops() + output_.flops(); }
  uint64_t pair_flops() const { return 4 * uint64_t{output_.inputs()}; }  // scores and values

 private:
  size_t heads_ = 0;
  Linear qkv_;
  Linear output_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_SELF_ATTENTION_H_
