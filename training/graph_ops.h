// Pieces of the training graphs that several families share: kernels as autograd functions.
//
// Thread safety: pure functions.
#ifndef DIMMER_TRAINING_GRAPH_OPS_H_
#define DIMMER_TRAINING_GRAPH_OPS_H_

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "training/kernels.h"

namespace dimmer {

torch::Tensor IndexTensor(const std::vector<int64_t>& values);

// x times a fresh mask.
torch::Tensor ApplyDropout(const torch::Tensor& x, const Dropout& dropout);

// relu(pre) [tokens, hidden], its number of non-zero values, and the sum of the square Hoyer
// measure over tokens.
struct SparseActivation {
  torch::Tensor values, hoyer;
  int64_t active = 0;
};
SparseActivation ReluWithHoyer(const torch::Tensor& pre);

// causal_attention.h: qkv [tokens, 3 d] -> [tokens, d]. `qkv` is contiguous.
torch::Tensor CausalAttend(const torch::Tensor& qkv, const std::vector<int32_t>& offsets,
                           int64_t heads, const Dropout& dropout);

// Summed cross-entropy of x [tokens, d] through the head [vocab, d]. The gradient is computed on
// the way, kHeadTokens tokens at a time, so that the logits of a whole batch never exist.
inline constexpr int64_t kHeadTokens = 256;
torch::Tensor NextTokenLoss(const torch::Tensor& x, const torch::Tensor& head,
                            const std::vector<int64_t>& targets);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_GRAPH_OPS_H_
