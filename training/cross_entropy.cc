#include "training/cross_entropy.h"

#include <cmath>

#include "training/kernels-inl.h"

namespace dimmer {

DIMMER_MULTIVERSION
void CrossEntropy(std::span<const int64_t> targets, int64_t vocab, float* logits, float* losses) {
  for (size_t t = 0; t < targets.size(); ++t) {
    float* row = logits + static_cast<int64_t>(t) * vocab;
    float top = row[0];
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < vocab; ++i) top = row[i] > top ? row[i] : top;
    const float wanted = row[targets[t]];
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < vocab; ++i) {
      row[i] = ExpOfNegative(row[i] - top);
      sum += row[i];
    }
    losses[t] = std::log(sum) - (wanted - top);
    const float inverse = 1 / sum;
    for (int64_t i = 0; i < vocab; ++i) row[i] *= inverse;
    row[targets[t]] -= 1;
  }
}

}  // namespace dimmer
