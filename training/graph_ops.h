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

}  // namespace dimmer

#endif  // DIMMER_TRAINING_GRAPH_OPS_H_
