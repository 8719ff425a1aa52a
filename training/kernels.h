// The training loops that libtorch has no fast single-thread form of: attention over packed
// sequences, ReLU fused with its square Hoyer penalty, dropout with stateless masks, and AdamW.
// Plain loops that the compiler vectorises; the instruction set is chosen at run time.
//
// Thread safety: pure functions. Matrices are row-major fp32. Results are fixed on one machine
// type.
#ifndef DIMMER_TRAINING_KERNELS_H_
#define DIMMER_TRAINING_KERNELS_H_

#include <cstdint>
#include <span>

namespace dimmer {

// Inverted dropout: a factor is 0 with probability `rate`, else 1 / (1 - rate).
struct Dropout {
  float rate = 0;
  uint64_t key = 0;
};
void DropoutMask(const Dropout& dropout, std::span<float> mask);

// Sequence s is rows [offsets[s], offsets[s + 1]) of every [tokens, width] matrix; head h is
// columns [h * width / heads, ...). Nothing attends across sequences.
struct AttentionShape {
  std::span<const int32_t> offsets;  // [sequences + 1]
  int32_t heads = 0;
  int32_t width = 0;

  int64_t ProbabilityCount() const;  // heads * sum of squared lengths
};

// out = dropout(softmax(q k^T / sqrt(width / heads))) v. `probabilities` [ProbabilityCount()] keeps
// the softmax (before dropout) for the way back.
void AttentionForward(const AttentionShape& shape, const Dropout& dropout, const float* q,
                      const float* k, const float* v, float* out, float* probabilities);
// Overwrites dq, dk, dv.
void AttentionBackward(const AttentionShape& shape, const Dropout& dropout, const float* q,
                       const float* k, const float* v, const float* probabilities,
                       const float* dout, float* dq, float* dk, float* dv);

// act = max(pre, 0) [tokens, hidden], and for every token the sums that the square Hoyer measure
// h = (sum |a|)^2 / (sum a^2 + 1e-15) needs (Hoyer 2004; ALGORITHM.md, Eq. 1).
struct HoyerSums {
  float sum = 0;      // sum |a|
  float squares = 0;  // sum a^2
  double Value() const;
};
// Returns the number of non-zero activations. `act` may be `pre`.
int64_t ReluHoyerForward(const float* pre, int64_t tokens, int64_t hidden, float* act,
                         HoyerSums* sums);
// dpre = (dact + dhoyer * dh/da) where act > 0, else 0; `dhoyer` is the loss's derivative by any
// token's h.
void ReluHoyerBackward(const float* act, const HoyerSums* sums, const float* dact, float dhoyer,
                       int64_t tokens, int64_t hidden, float* dpre);

// out [m, n] = a [m, k] b [k, n]; for matrices too few to be worth a BLAS.
void MatrixProduct(const float* a, const float* b, int64_t m, int64_t k, int64_t n, float* out);

// One AdamW step (Loshchilov and Hutter 2019) on one tensor. The gradient is the sum of
// `gradients`, in order, times `gradient_scale`.
struct AdamStep {
  float learning_rate = 0;
  float beta1 = 0.9F, beta2 = 0.999F, epsilon = 1e-8F;
  float weight_decay = 0;
  float gradient_scale = 1;
  int64_t step = 1;  // from 1
};
void AdamUpdate(const AdamStep& step, std::span<const float* const> gradients,
                std::span<float> values, std::span<float> first, std::span<float> second);

// Sum of squares of the summed gradients.
double SquaredNorm(std::span<const float* const> gradients, int64_t count);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_KERNELS_H_
