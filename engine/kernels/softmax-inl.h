// Softmax over a row of attention scores, per Highway target.

#if defined(DIMMER_ENGINE_KERNELS_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DIMMER_ENGINE_KERNELS_SOFTMAX_INL_H_
#undef DIMMER_ENGINE_KERNELS_SOFTMAX_INL_H_
#else
#define DIMMER_ENGINE_KERNELS_SOFTMAX_INL_H_
#endif

#include <cstddef>

#include "engine/kernels/packed_matrix.h"
#include "engine/kernels/vector-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace dimmer::HWY_NAMESPACE {

// row[0:count] = exp(scale * (row - max)); returns 1 / their sum. The order of the sum depends on
// `count` alone.
HWY_INLINE float ExpRow(float* row, size_t count, float scale) {
  const FloatTag t;
  const size_t padded = PaddedWidth(count);
  const FloatVec lowest = hn::Set(t, -3.0e38f);
  FloatVec max = lowest;
  for (size_t i = 0; i < padded; i += kLanes) {
    FloatVec x = hn::LoadU(t, row + i);
    if (i + kLanes > count) {
      x = hn::IfThenElse(hn::FirstN(t, i < count ? count - i : 0), x, lowest);
      hn::StoreU(x, t, row + i);
    }
    max = hn::Max(max, x);
  }
  max = hn::MaxOfLanes(t, max);
  const FloatVec factor = hn::Set(t, scale);
  FloatVec sum = hn::Zero(t);
  for (size_t i = 0; i < padded; i += kLanes) {
    const FloatVec shifted = hn::Mul(hn::Sub(hn::LoadU(t, row + i), max), factor);
    const FloatVec e = hn::Exp(t, hn::Max(shifted, hn::Set(t, -100.0f)));
    hn::StoreU(e, t, row + i);
    if (i + kLanes <= count) {
      sum = hn::Add(sum, e);
    } else if (i < count) {
      sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(t, count - i), e));
    }
  }
  return 1.0f / hn::GetLane(hn::SumOfLanes(t, sum));
}

HWY_INLINE void ScaleRow(const float* row, size_t count, float factor, float* out) {
  const FloatTag tag;
  size_t c = 0;
  for (; c + kLanes <= count; c += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(tag, row + c), hn::Set(tag, factor)), tag, out + c);
  }
  for (; c < count; ++c) out[c] = row[c] * factor;
}

}  // namespace dimmer::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
