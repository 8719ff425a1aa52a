#include "engine/layers/causal_attention.h"

#include <algorithm>
#include <cmath>

#include "engine/kernels/cached_attention.h"
#include "engine/layers/partition.h"

namespace dimmer {
namespace {

// Multiply-accumulates below which to wake another thread costs more than it saves.
constexpr uint64_t kWorkToSplit = 1 << 16;

}  // namespace

// Turns queries and keys to their positions, and puts keys and values into the pages.
void CausalAttention::Store(const CausalRows& sequence, size_t layer, float* qkv, size_t stride,
                            std::span<float> angles) const {
  const size_t block = KvHeadBlock(head_dim_);
  for (size_t r = 0; r < sequence.rows.count; ++r) {
    float* row = qkv + (sequence.rows.first + r) * stride;
    const uint64_t position = sequence.position + r;
    if (rotary_) {
      const auto cosines = angles.first(rotary_->half());
      const auto sines = angles.subspan(rotary_->half(), rotary_->half());
      rotary_->Angles(position, cosines, sines);
      rotary_->Turn(cosines, sines, heads_ + kv_heads_, row);
    }
    const float* key = row + heads_ * head_dim_;
    const float* value = key + kv_heads_ * head_dim_;
    const size_t page = position / kKvPageTokens;
    float* keys = sequence.kv->k(layer, page);
    float* values = sequence.kv->v(layer, page);
    for (size_t h = 0; h < kv_heads_; ++h) {
      StoreKeyValue(key + h * head_dim_, value + h * head_dim_, head_dim_, position % kKvPageTokens,
                    keys + h * block, values + h * block);
    }
  }
}

void CausalAttention::Attend(const CausalRows& sequence, size_t row, size_t head, KvView kv,
                             const float* q, float* out, float* scratch) const {
  const size_t offset = head / (heads_ / kv_heads_) * KvHeadBlock(head_dim_);
  kv.keys += offset;
  kv.values += offset;
  CachedAttentionArgs args;
  args.q = q + head * head_dim_;
  args.kv = kv;
  args.tokens = sequence.position + row + 1;
  args.head_dim = head_dim_;
  args.scale = 1.0f / std::sqrt(static_cast<float>(head_dim_));
  args.out = out + head * head_dim_;
  AttendCached(args, scratch);
}

void CausalAttention::Apply(const float* z, const float* residual,
                            std::span<const CausalRows> sequences, size_t layer, float* out,
                            ThreadPool& pool, Workspace& workspace) const {
  const size_t stride = PaddedWidth(output_.outputs());
  const size_t qkv_stride = PaddedWidth(qkv_.outputs());
  const size_t context_stride = PaddedWidth(heads_ * head_dim_);
  size_t rows = 0;
  uint64_t longest = 0;
  uint64_t work = 0;
  for (const CausalRows& sequence : sequences) {
    rows = std::max(rows, sequence.rows.first + sequence.rows.count);
    const uint64_t end = sequence.position + sequence.rows.count;
    longest = std::max(longest, end);
    work += sequence.rows.count * end * heads_ * head_dim_;
  }
  float* qkv = workspace.Floats(Workspace::kQkv, rows * qkv_stride);
  float* context = workspace.Floats(Workspace::kContext, rows * context_stride);
  // Also the angles of a position.
  const size_t scratch_size = std::max(CachedAttentionScratch(longest), PaddedWidth(head_dim_));
  float* scratch = workspace.Floats(Workspace::kAttention, pool.threads() * scratch_size);

  qkv_.Apply({z, stride, nullptr}, rows, Activation::kNone, qkv, qkv_stride, pool);
  for (const CausalRows& sequence : sequences) {
    Store(sequence, layer, qkv, qkv_stride, {scratch, scratch_size});
  }
  const auto attend = [&](const CausalRows& sequence, size_t head, size_t thread) {
    const KvView kv = sequence.kv->layer(layer);
    for (size_t r = 0; r < sequence.rows.count; ++r) {
      const size_t row = sequence.rows.first + r;
      Attend(sequence, r, head, kv, qkv + row * qkv_stride, context + row * context_stride,
             scratch + thread * scratch_size);
    }
  };
  if (work < kWorkToSplit || pool.threads() == 1) {
    for (const CausalRows& sequence : sequences) {
      for (size_t head = 0; head < heads_; ++head) attend(sequence, head, 0);
    }
  } else {
    pool.ParallelFor(sequences.size() * heads_, [&](size_t item, size_t thread) {
      attend(sequences[item / heads_], item % heads_, thread);
    });
  }
  output_.ApplyAndAdd({context, context_stride, nullptr}, rows, residual, out, stride, pool);
}

}  // namespace dimmer
