#include "training/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "training/kernels-inl.h"

namespace dimmer {
namespace {

constexpr float kHoyerEpsilon = 1e-15F;

// Room for one head of one sequence; reused from one call to the next.
struct AttentionScratch {
  std::vector<float> transposed, scores, mask, gradient;
  void Resize(size_t length, size_t head_width) {
    transposed.resize(head_width * length);
    scores.resize(length);
    mask.resize(length);
    gradient.resize(length);
  }
};

// y += a x
DIMMER_INLINE void AddScaled(float a, const float* __restrict x, int64_t count,
                             float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] += a * x[i];
}

DIMMER_INLINE void Transpose(const float* rows, int64_t stride, int64_t length, int64_t width,
                             float* out) {
  for (int64_t j = 0; j < length; ++j) {
    for (int64_t d = 0; d < width; ++d) out[d * length + j] = rows[j * stride + d];
  }
}

// out[0 .. length) = sum_d row[d] * transposed[d][:]
DIMMER_INLINE void RowTimes(const float* row, const float* transposed, int64_t length,
                            int64_t width, float* out) {
  for (int64_t j = 0; j < length; ++j) out[j] = 0;
  for (int64_t d = 0; d < width; ++d) AddScaled(row[d], transposed + d * length, length, out);
}

DIMMER_INLINE void Softmax(float scale, int64_t length, float* scores) {
  float top = scores[0];
  for (int64_t j = 1; j < length; ++j) top = std::max(top, scores[j]);
  float sum = 0;
  for (int64_t j = 0; j < length; ++j) {
    scores[j] = std::exp((scores[j] - top) * scale);
    sum += scores[j];
  }
  const float inverse = 1 / sum;
  for (int64_t j = 0; j < length; ++j) scores[j] *= inverse;
}

// kWidth is the head's width where it is known to the compiler, else 0.
template <int kWidth>
DIMMER_INLINE void ForwardHead(const float* q, const float* k, const float* v, int64_t stride,
                               int64_t length, int64_t head_width, const MaskParameters& mask,
                               uint32_t first, float* out, float* probabilities,
                               AttentionScratch& scratch) {
  const int64_t width = kWidth > 0 ? kWidth : head_width;
  const float scale = 1 / std::sqrt(static_cast<float>(width));
  Transpose(k, stride, length, width, scratch.transposed.data());
  for (int64_t i = 0; i < length; ++i) {
    float* row = probabilities + i * length;
    RowTimes(q + i * stride, scratch.transposed.data(), length, width, row);
    Softmax(scale, length, row);
    float* factors = scratch.mask.data();
    if (mask.threshold > 0) {
      FillMask(first + static_cast<uint32_t>(i * length), mask.low, mask.high, mask.threshold,
               mask.keep, length, factors);
      for (int64_t j = 0; j < length; ++j) factors[j] *= row[j];
    } else {
      factors = row;
    }
    float* result = out + i * stride;
    for (int64_t d = 0; d < width; ++d) result[d] = 0;
    for (int64_t j = 0; j < length; ++j) AddScaled(factors[j], v + j * stride, width, result);
  }
}

struct HeadGradients {
  float *dq, *dk, *dv;
};

template <int kWidth>
DIMMER_INLINE void BackwardHead(const float* q, const float* k, const float* v, int64_t stride,
                                int64_t length, int64_t head_width, const MaskParameters& mask,
                                uint32_t first, const float* probabilities, const float* dout,
                                const HeadGradients& out, AttentionScratch& scratch) {
  const int64_t width = kWidth > 0 ? kWidth : head_width;
  const float scale = 1 / std::sqrt(static_cast<float>(width));
  Transpose(v, stride, length, width, scratch.transposed.data());
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t d = 0; d < width; ++d) {
      out.dq[i * stride + d] = out.dk[i * stride + d] = out.dv[i * stride + d] = 0;
    }
  }
  for (int64_t i = 0; i < length; ++i) {
    const float* row = probabilities + i * length;
    const float* g = dout + i * stride;
    float* factors = scratch.mask.data();
    if (mask.threshold > 0) {
      FillMask(first + static_cast<uint32_t>(i * length), mask.low, mask.high, mask.threshold,
               mask.keep, length, factors);
    } else {
      for (int64_t j = 0; j < length; ++j) factors[j] = 1;
    }
    float* dscore = scratch.gradient.data();  // first by the dropped-out probabilities
    RowTimes(g, scratch.transposed.data(), length, width, dscore);
    float dot = 0;
    for (int64_t j = 0; j < length; ++j) {
      dscore[j] *= factors[j];
      dot += dscore[j] * row[j];
      factors[j] *= row[j];
    }
    for (int64_t j = 0; j < length; ++j) dscore[j] = row[j] * (dscore[j] - dot) * scale;
    const float* query = q + i * stride;
    float* dq = out.dq + i * stride;
    for (int64_t j = 0; j < length; ++j) {
      AddScaled(factors[j], g, width, out.dv + j * stride);
      AddScaled(dscore[j], query, width, out.dk + j * stride);
      AddScaled(dscore[j], k + j * stride, width, dq);
    }
  }
}

// Calls head(sequence's first row, first column, length, first probability) for every head.
template <typename Head>
DIMMER_INLINE void ForEachHead(const AttentionShape& shape, const Head& head) {
  const int64_t head_width = shape.width / shape.heads;
  int64_t probability = 0;
  for (size_t s = 0; s + 1 < shape.offsets.size(); ++s) {
    const int64_t begin = shape.offsets[s];
    const int64_t length = shape.offsets[s + 1] - begin;
    for (int64_t h = 0; h < shape.heads; ++h) {
      head(begin * shape.width + h * head_width, length, probability);
      probability += length * length;
    }
  }
}

int64_t LongestSequence(const AttentionShape& shape) {
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < shape.offsets.size(); ++s) {
    longest = std::max<int64_t>(longest, shape.offsets[s + 1] - shape.offsets[s]);
  }
  return longest;
}

}  // namespace

DIMMER_MULTIVERSION
void DropoutMask(const Dropout& dropout, std::span<float> mask) {
  const MaskParameters p(dropout);
  FillMask(0, p.low, p.high, p.threshold, p.keep, static_cast<int64_t>(mask.size()), mask.data());
}

int64_t AttentionShape::ProbabilityCount() const {
  int64_t count = 0;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    const int64_t length = offsets[s + 1] - offsets[s];
    count += length * length;
  }
  return count * heads;
}

DIMMER_MULTIVERSION
void AttentionForward(const AttentionShape& shape, const Dropout& dropout, const float* q,
                      const float* k, const float* v, float* out, float* probabilities) {
  const MaskParameters mask(dropout);
  const int64_t head_width = shape.width / shape.heads;
  AttentionScratch scratch;
  scratch.Resize(LongestSequence(shape), head_width);
  ForEachHead(
      shape, [&](int64_t at, int64_t length, int64_t p) __attribute__((always_inline)) {
        const auto first = static_cast<uint32_t>(p);
        if (head_width == 32) {
          ForwardHead<32>(q + at, k + at, v + at, shape.width, length, head_width, mask, first,
                          out + at, probabilities + p, scratch);
        } else {
          ForwardHead<0>(q + at, k + at, v + at, shape.width, length, head_width, mask, first,
                         out + at, probabilities + p, scratch);
        }
      });
}

DIMMER_MULTIVERSION
void AttentionBackward(const AttentionShape& shape, const Dropout& dropout, const float* q,
                       const float* k, const float* v, const float* probabilities,
                       const float* dout, float* dq, float* dk, float* dv) {
  const MaskParameters mask(dropout);
  const int64_t head_width = shape.width / shape.heads;
  AttentionScratch scratch;
  scratch.Resize(LongestSequence(shape), head_width);
  ForEachHead(
      shape, [&](int64_t at, int64_t length, int64_t p) __attribute__((always_inline)) {
        const HeadGradients out{dq + at, dk + at, dv + at};
        if (head_width == 32) {
          BackwardHead<32>(q + at, k + at, v + at, shape.width, length, head_width, mask,
                           static_cast<uint32_t>(p), probabilities + p, dout + at, out, scratch);
        } else {
          BackwardHead<0>(q + at, k + at, v + at, shape.width, length, head_width, mask,
                          static_cast<uint32_t>(p), probabilities + p, dout + at, out, scratch);
        }
      });
}

double HoyerSums::Value() const {
  return static_cast<double>(sum) * sum / (static_cast<double>(squares) + kHoyerEpsilon);
}

DIMMER_MULTIVERSION
int64_t ReluHoyerForward(const float* pre, int64_t tokens, int64_t hidden, float* act,
                         HoyerSums* sums) {
  int64_t active = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    const float* in = pre + t * hidden;
    float* out = act + t * hidden;
    float sum = 0;
    float squares = 0;
    int32_t nonzero = 0;
#pragma omp simd reduction(+ : sum, squares, nonzero)
    for (int64_t i = 0; i < hidden; ++i) {
      const float a = in[i] > 0 ? in[i] : 0;
      out[i] = a;
      sum += a;
      squares += a * a;
      nonzero += in[i] > 0 ? 1 : 0;
    }
    sums[t] = {sum, squares};
    active += nonzero;
  }
  return active;
}

DIMMER_MULTIVERSION
void ReluHoyerBackward(const float* act, const HoyerSums* sums, const float* dact, float dhoyer,
                       int64_t tokens, int64_t hidden, float* dpre) {
  for (int64_t t = 0; t < tokens; ++t) {
    // dh/da = 2 S1 / S2 - 2 a S1^2 / S2^2 where a > 0.
    const double inverse = 1 / (static_cast<double>(sums[t].squares) + kHoyerEpsilon);
    const double ratio = sums[t].sum * inverse;
    const auto constant = static_cast<float>(2 * ratio * dhoyer);
    const auto slope = static_cast<float>(2 * ratio * ratio * dhoyer);
    const float* a = act + t * hidden;
    const float* g = dact + t * hidden;
    float* out = dpre + t * hidden;
    for (int64_t i = 0; i < hidden; ++i) {
      out[i] = a[i] > 0 ? g[i] + constant - slope * a[i] : 0;
    }
  }
}

DIMMER_MULTIVERSION
void MatrixProduct(const float* a, const float* b, int64_t m, int64_t k, int64_t n, float* out) {
  for (int64_t i = 0; i < m; ++i) RowTimes(a + i * k, b, n, k, out + i * n);
}

DIMMER_MULTIVERSION
void AdamUpdate(const AdamStep& step, std::span<const float* const> gradients,
                std::span<float> values, std::span<float> first, std::span<float> second) {
  const auto correction1 =
      static_cast<float>(1 - std::pow(static_cast<double>(step.beta1), step.step));
  const auto correction2 =
      static_cast<float>(1 / std::sqrt(1 - std::pow(static_cast<double>(step.beta2), step.step)));
  const float rate = step.learning_rate / correction1;
  const float decay = 1 - step.learning_rate * step.weight_decay;
  float* w = values.data();
  float* m = first.data();
  float* s = second.data();
  constexpr size_t kBlock = 1024;  // the summed gradient stays in the first-level cache
  float g[kBlock];
  for (size_t begin = 0; begin < values.size(); begin += kBlock) {
    const size_t count = std::min(kBlock, values.size() - begin);
    std::memcpy(g, gradients[0] + begin, count * sizeof(float));
    for (size_t n = 1; n < gradients.size(); ++n) {
      const float* other = gradients[n] + begin;
      for (size_t i = 0; i < count; ++i) g[i] += other[i];
    }
    float* wb = w + begin;
    float* mb = m + begin;
    float* sb = s + begin;
    for (size_t i = 0; i < count; ++i) {
      const float gradient = g[i] * step.gradient_scale;
      mb[i] = step.beta1 * mb[i] + (1 - step.beta1) * gradient;
      sb[i] = step.beta2 * sb[i] + (1 - step.beta2) * gradient * gradient;
      wb[i] = wb[i] * decay - rate * mb[i] / (std::sqrt(sb[i]) * correction2 + step.epsilon);
    }
  }
}

DIMMER_MULTIVERSION
double SquaredNorm(std::span<const float* const> gradients, int64_t count) {
  double total = 0;
  constexpr int64_t kBlock = 1024;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(count, begin + kBlock);
    float partial = 0;
    const float* first = gradients[0];
    const float* second = gradients.size() > 1 ? gradients[1] : nullptr;
    if (second == nullptr) {
#pragma omp simd reduction(+ : partial)
      for (int64_t i = begin; i < end; ++i) partial += first[i] * first[i];
    } else if (gradients.size() == 2) {
#pragma omp simd reduction(+ : partial)
      for (int64_t i = begin; i < end; ++i) {
        const float sum = first[i] + second[i];
        partial += sum * sum;
      }
    } else {
      for (int64_t i = begin; i < end; ++i) {
        float sum = 0;
        for (const float* gradient : gradients) sum += gradient[i];
        partial += sum * sum;
      }
    }
    total += partial;
  }
  return total;
}

}  // namespace dimmer
