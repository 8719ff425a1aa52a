#include "engine/kernels/rowwise.h"

#include <cmath>

#include "engine/kernels/hwy_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/kernels/rowwise.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "engine/kernels/activation-inl.h"
#include "engine/kernels/vector-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace dimmer::HWY_NAMESPACE {

// Sum over i < d of f(x[i]); lanes past d count as zero.
template <typename F>
HWY_INLINE float SumRow(const float* x, size_t d, const F& f) {
  const FloatTag t;
  FloatVec sum = hn::Zero(t);
  for (size_t i = 0; i < d; i += kLanes) {
    const FloatVec value = f(hn::LoadU(t, x + i));
    sum = hn::Add(sum, i + kLanes <= d ? value : hn::IfThenElseZero(hn::FirstN(t, d - i), value));
  }
  return hn::GetLane(hn::SumOfLanes(t, sum));
}

void LayerNormImpl(const float* x, const float* gamma, const float* beta, size_t d, float epsilon,
                   float* out) {
  const FloatTag t;
  const float mean = SumRow(x, d, [](FloatVec v) HWY_ATTR { return v; }) / static_cast<float>(d);
  const FloatVec center = hn::Set(t, mean);
  const float variance = SumRow(x, d,
                                [center](FloatVec v) HWY_ATTR {
                                  const FloatVec delta = hn::Sub(v, center);
                                  return hn::Mul(delta, delta);
                                }) /
                         static_cast<float>(d);
  const FloatVec scale = hn::Set(t, 1.0f / std::sqrt(variance + epsilon));
  for (size_t i = 0; i < d; i += kLanes) {
    const FloatVec normal = hn::Mul(hn::Sub(hn::LoadU(t, x + i), center), scale);
    hn::StoreU(hn::MulAdd(normal, hn::LoadU(t, gamma + i), hn::LoadU(t, beta + i)), t, out + i);
  }
}

void RmsNormImpl(const float* x, const float* gamma, size_t d, float epsilon, float* out) {
  const FloatTag t;
  const float squares = SumRow(x, d, [](FloatVec v) HWY_ATTR { return hn::Mul(v, v); });
  const FloatVec scale = hn::Set(t, 1.0f / std::sqrt(squares / static_cast<float>(d) + epsilon));
  for (size_t i = 0; i < d; i += kLanes) {
    const FloatVec normal = hn::Mul(hn::LoadU(t, x + i), scale);
    hn::StoreU(hn::Mul(normal, hn::LoadU(t, gamma + i)), t, out + i);
  }
}

void MultiplyRowImpl(const float* y, size_t count, float* x) {
  const FloatTag t;
  for (size_t i = 0; i < count; i += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(t, x + i), hn::LoadU(t, y + i)), t, x + i);
  }
}

void AddRowImpl(const float* a, const float* b, size_t d, float* out) {
  const FloatTag t;
  for (size_t i = 0; i < d; i += kLanes) {
    hn::StoreU(hn::Add(hn::LoadU(t, a + i), hn::LoadU(t, b + i)), t, out + i);
  }
}

void ActivateImpl(Activation activation, float* x, size_t count) {
  ActivateRow(activation, x, PaddedWidth(count));
}

HWY_INLINE FloatVec ShiftedTerm(FloatVec x, FloatVec shift, FloatVec factor) {
  const FloatTag t;
  // The largest negative number in place of minus infinity, which a scale of 0 would make NaN.
  const FloatVec distance = hn::Max(hn::Sub(x, shift), hn::Set(t, -3.0e38f));
  const FloatVec scaled = hn::Mul(distance, factor);
  const FloatVec floor = hn::Set(t, -100.0f);
  return hn::IfThenElseZero(hn::Ge(scaled, floor), hn::Exp(t, hn::Max(scaled, floor)));
}

double ExpShiftedImpl(const float* x, size_t count, float shift, float scale, float* out) {
  constexpr size_t kBlock = 1024;
  const FloatTag t;
  const FloatVec shifts = hn::Set(t, shift);
  const FloatVec factor = hn::Set(t, scale);
  double sum = 0;
  for (size_t block = 0; block < count; block += kBlock) {
    const size_t end = block + kBlock < count ? block + kBlock : count;
    FloatVec lanes = hn::Zero(t);
    size_t i = block;
    for (; i + kLanes <= end; i += kLanes) {
      const FloatVec term = ShiftedTerm(hn::LoadU(t, x + i), shifts, factor);
      if (out != nullptr) hn::StoreU(term, t, out + i);
      lanes = hn::Add(lanes, term);
    }
    if (i < end) {
      HWY_ALIGN float tail[kLanes] = {};
      for (size_t j = 0; i + j < end; ++j) tail[j] = x[i + j];
      const FloatVec term = hn::IfThenElseZero(hn::FirstN(t, end - i),
                                               ShiftedTerm(hn::Load(t, tail), shifts, factor));
      hn::Store(term, t, tail);
      for (size_t j = 0; out != nullptr && i + j < end; ++j) out[i + j] = tail[j];
      lanes = hn::Add(lanes, term);
    }
    sum += double{hn::GetLane(hn::SumOfLanes(t, lanes))};
  }
  return sum;
}

void AddFloatImpl(const float* row, size_t count, float* out) {
  for (size_t i = 0; i < count; ++i) out[i] += row[i];
}

template <typename T>
HWY_INLINE void AddRow16(const uint16_t* row, size_t count, float* out) {
  const FloatTag t;
  const hn::Rebind<T, FloatTag> narrow;
  const hn::Rebind<uint16_t, FloatTag> bits;
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const auto value = hn::PromoteTo(t, hn::BitCast(narrow, hn::LoadU(bits, row + i)));
    hn::StoreU(hn::Add(hn::LoadU(t, out + i), value), t, out + i);
  }
  if (i == count) return;
  HWY_ALIGN uint16_t tail[kPanel] = {};
  HWY_ALIGN float wide[kPanel];
  for (size_t j = 0; i + j < count; ++j) tail[j] = row[i + j];
  hn::Store(hn::PromoteTo(t, hn::BitCast(narrow, hn::Load(bits, tail))), t, wide);
  for (size_t j = 0; i + j < count; ++j) out[i + j] += wide[j];
}

void AddHalfImpl(const uint16_t* row, size_t count, float* out) {
  AddRow16<hwy::float16_t>(row, count, out);
}

void AddBFloat16Impl(const uint16_t* row, size_t count, float* out) {
  AddRow16<hwy::bfloat16_t>(row, count, out);
}

const char* InstructionSetImpl() { return hwy::TargetName(HWY_TARGET); }

}  // namespace dimmer::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace dimmer {

HWY_EXPORT(LayerNormImpl);
HWY_EXPORT(RmsNormImpl);
HWY_EXPORT(MultiplyRowImpl);
HWY_EXPORT(AddRowImpl);
HWY_EXPORT(ActivateImpl);
HWY_EXPORT(ExpShiftedImpl);
HWY_EXPORT(AddFloatImpl);
HWY_EXPORT(AddHalfImpl);
HWY_EXPORT(AddBFloat16Impl);
HWY_EXPORT(InstructionSetImpl);

void LayerNormRow(const float* x, const float* gamma, const float* beta, size_t d, float epsilon,
                  float* out) {
  HWY_DYNAMIC_DISPATCH(LayerNormImpl)(x, gamma, beta, d, epsilon, out);
}
void RmsNormRow(const float* x, const float* gamma, size_t d, float epsilon, float* out) {
  HWY_DYNAMIC_DISPATCH(RmsNormImpl)(x, gamma, d, epsilon, out);
}
void MultiplyRow(const float* y, size_t count, float* x) {
  HWY_DYNAMIC_DISPATCH(MultiplyRowImpl)(y, count, x);
}
void AddRow(const float* a, const float* b, size_t d, float* out) {
  HWY_DYNAMIC_DISPATCH(AddRowImpl)(a, b, d, out);
}
void Activate(Activation activation, float* x, size_t count) {
  HWY_DYNAMIC_DISPATCH(ActivateImpl)(activation, x, count);
}
double ExpShifted(const float* x, size_t count, float shift, float scale, float* out) {
  return HWY_DYNAMIC_DISPATCH(ExpShiftedImpl)(x, count, shift, scale, out);
}
void AddFloat(const float* row, size_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(AddFloatImpl)(row, count, out);
}
void AddHalf(const uint16_t* row, size_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(AddHalfImpl)(row, count, out);
}
void AddBFloat16(const uint16_t* row, size_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(AddBFloat16Impl)(row, count, out);
}
const char* InstructionSet() { return HWY_DYNAMIC_DISPATCH(InstructionSetImpl)(); }

}  // namespace dimmer
#endif  // HWY_ONCE
