// Softmax attention of one head over one sequence.
//
// Thread safety: pure functions.
#ifndef DIMMER_ENGINE_KERNELS_ATTENTION_H_
#define DIMMER_ENGINE_KERNELS_ATTENTION_H_

#include <cstddef>

namespace dimmer {

// q, k, v: the head's columns of the sequence's first token; rows `stride` floats apart.
// out[t, 0:head_dim] = softmax(scale * q k^T) v, every token attending to all.
struct AttentionArgs {
  const float* q = nullptr;
  const float* k = nullptr;
  const float* v = nullptr;
  size_t stride = 0;
  size_t tokens = 0;
  size_t head_dim = 0;
  float scale = 1;
  float* out = nullptr;
  size_t out_stride = 0;
};

// Floats that AttendHead needs.
size_t AttentionScratch(size_t tokens, size_t head_dim);
void AttendHead(const AttentionArgs& args, float* scratch);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_KERNELS_ATTENTION_H_
