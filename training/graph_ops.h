// Pieces of the training graphs that several families share: kernels as autograd functions.
//
// Thread safety: pure functions.
#ifndef DIMMER_TRAINING_GRAPH_OPS_H_
#define DIMMER_TRAINING_GRAPH_OPS_H_

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "training/kernels.h"
#include "training/sparsity.h"

namespace dimmer {

torch::Tensor IndexTensor(const std::vector<int64_t>& values);

// x times a fresh mask.
torch::Tensor ApplyDropout(const torch::Tensor& x, const Dropout& dropout);

// pre [tokens, hidden] through a function that FFNs use. std::invalid_argument: another one.
torch::Tensor Activated(const torch::Tensor& pre, Activation activation);

// The same, the number of active values, and the penalty's sum over tokens.
struct SparseActivation {
  torch::Tensor values, penalty;
  int64_t active = 0;
};
SparseActivation Activate(const torch::Tensor& pre, const Sparsity& sparsity);
// Of the gate of a gated FFN.
SparseActivation ActivateGate(const torch::Tensor& pre, const Sparsity& sparsity);

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
