#include "engine/layers/self_attention.h"

#include <algorithm>
#include <cmath>

#include "engine/kernels/attention.h"

namespace dimmer {

void SelfAttention::Apply(const float* x, std::span<const SequenceRows> sequences, float* out,
                          ThreadPool& pool, Workspace& workspace) const {
  const size_t d = output_.inputs();
  const size_t stride = PaddedWidth(d);
  const size_t qkv_stride = PaddedWidth(3 * d);
  const size_t head_dim = d / heads_;
  size_t rows = 0;
  size_t longest = 0;
  for (const SequenceRows& sequence : sequences) {
    rows = std::max(rows, sequence.first + sequence.count);
    longest = std::max(longest, sequence.count);
  }
  float* qkv = workspace.Floats(Workspace::kQkv, rows * qkv_stride);
  float* context = workspace.Floats(Workspace::kContext, rows * stride);
  const size_t scratch_size = PaddedWidth(AttentionScratch(longest, head_dim));
  float* scratch = workspace.Floats(Workspace::kAttention, pool.threads() * scratch_size);

  qkv_.Apply({x, stride, nullptr}, rows, Activation::kNone, qkv, qkv_stride, pool);
  pool.ParallelFor(sequences.size() * heads_, [&](size_t item, size_t thread) {
    const SequenceRows& sequence = sequences[item / heads_];
    const size_t column = item % heads_ * head_dim;
    AttentionArgs args;
    args.q = qkv + sequence.first * qkv_stride + column;
    args.k = args.q + d;
    args.v = args.q + 2 * d;
    args.stride = qkv_stride;
    args.tokens = sequence.count;
    args.head_dim = head_dim;
    args.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    args.out = context + sequence.first * stride + column;
    args.out_stride = stride;
    AttendHead(args, scratch + thread * scratch_size);
  });
  output_.ApplyAndAdd({context, stride, nullptr}, rows, x, out, stride, pool);
}

}  // namespace dimmer
