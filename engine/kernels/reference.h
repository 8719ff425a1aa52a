// Scalar kernels that stay: plain loops in double precision, slow and obviously right. Every fast
// kernel is tested against them.
#ifndef DIMMER_ENGINE_KERNELS_REFERENCE_H_
#define DIMMER_ENGINE_KERNELS_REFERENCE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/kernels/activation.h"

namespace dimmer::reference {

double Activate(Activation activation, double x);

// out [rows, n] = activation(a [rows, k] w^T + bias), w [n, k] as torch.nn.Linear; bias may be
// empty.
std::vector<float> Linear(std::span<const float> a, size_t rows, std::span<const float> w, size_t n,
                          size_t k, std::span<const float> bias, Activation activation);

// y [d] = b2 + sum over experts n with mask[n] of act(z W1_n + b1_n) W2_n, for one token z [d].
// w1 [hidden, d], w2 [d, hidden]; hidden = mask.size() * expert_size. With `up` [hidden, d], the
// hidden values are act(z W1_n + b1_n) * (z Up_n).
std::vector<float> ExpertFfn(std::span<const float> z, std::span<const float> w1,
                             std::span<const float> b1, std::span<const float> w2,
                             std::span<const float> b2, const std::vector<bool>& mask,
                             size_t expert_size, Activation activation,
                             std::span<const float> up = {});

// softmax(scale q k^T) v; q, k, v and the result [tokens, head_dim].
std::vector<float> Attention(std::span<const float> q, std::span<const float> k,
                             std::span<const float> v, size_t tokens, size_t head_dim,
                             double scale);

// softmax(scale q k^T) v of one query [head_dim]; k and v [tokens, head_dim].
std::vector<float> AttentionOfQuery(std::span<const float> q, std::span<const float> k,
                                    std::span<const float> v, double scale);

std::vector<float> LayerNorm(std::span<const float> x, std::span<const float> gamma,
                             std::span<const float> beta, double epsilon);

// x / sqrt(mean of squares + epsilon) * gamma.
std::vector<float> RmsNorm(std::span<const float> x, std::span<const float> gamma, double epsilon);

}  // namespace dimmer::reference

#endif  // DIMMER_ENGINE_KERNELS_REFERENCE_H_
