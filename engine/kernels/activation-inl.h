// Element-wise activations per Highway target.

#if defined(DIMMER_ENGINE_KERNELS_ACTIVATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DIMMER_ENGINE_KERNELS_ACTIVATION_INL_H_
#undef DIMMER_ENGINE_KERNELS_ACTIVATION_INL_H_
#else
#define DIMMER_ENGINE_KERNELS_ACTIVATION_INL_H_
#endif

#include <cstddef>

#include "engine/kernels/activation.h"
#include "engine/kernels/vector-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace dimmer::HWY_NAMESPACE {

// erf by a rational minimax approximation on [-4, 4] (the one of XLA and Eigen); |error| < 2e-7.
HWY_INLINE FloatVec Erf(FloatVec x) {
  const FloatTag t;
  x = hn::Min(hn::Max(x, hn::Set(t, -4.0f)), hn::Set(t, 4.0f));
  const FloatVec s = hn::Mul(x, x);
  FloatVec p = hn::Set(t, -2.72614225801306e-10f);
  p = hn::MulAdd(p, s, hn::Set(t, 2.77068142495902e-08f));
  p = hn::MulAdd(p, s, hn::Set(t, -2.10102402082508e-06f));
  p = hn::MulAdd(p, s, hn::Set(t, -5.69250639462346e-05f));
  p = hn::MulAdd(p, s, hn::Set(t, -7.34990630326855e-04f));
  p = hn::MulAdd(p, s, hn::Set(t, -2.95459980854025e-03f));
  p = hn::MulAdd(p, s, hn::Set(t, -1.60960333262415e-02f));
  FloatVec q = hn::Set(t, -1.45660718464996e-05f);
  q = hn::MulAdd(q, s, hn::Set(t, -2.13374055278905e-04f));
  q = hn::MulAdd(q, s, hn::Set(t, -1.68282697438203e-03f));
  q = hn::MulAdd(q, s, hn::Set(t, -7.37332916720468e-03f));
  q = hn::MulAdd(q, s, hn::Set(t, -1.42647390514189e-02f));
  return hn::Div(hn::Mul(x, p), q);
}

// x * sigmoid(z)
HWY_INLINE FloatVec TimesSigmoid(FloatVec x, FloatVec z) {
  const FloatTag t;
  const FloatVec one = hn::Set(t, 1.0f);
  // exp overflows to infinity past 88; x / inf = 0 is right there.
  return hn::Div(x, hn::Add(one, hn::Exp(t, hn::Min(hn::Neg(z), hn::Set(t, 88.0f)))));
}

template <Activation kActivation>
HWY_INLINE FloatVec Activated(FloatVec x) {
  const FloatTag t;
  if constexpr (kActivation == Activation::kRelu) {
    // Not Max(x, 0), which turns NaN into 0 on some targets.
    return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(t)), x);
  } else if constexpr (kActivation == Activation::kGelu) {
    const FloatVec half = hn::Mul(x, hn::Set(t, 0.5f));
    return hn::MulAdd(half, Erf(hn::Mul(x, hn::Set(t, 0.70710678118654752f))), half);
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    // 0.5 x (1 + tanh(u)) = x sigmoid(2u)
    const FloatVec cubic = hn::MulAdd(hn::Mul(x, x), hn::Set(t, 0.044715f), hn::Set(t, 1.0f));
    return TimesSigmoid(x, hn::Mul(hn::Mul(x, hn::Set(t, 1.5957691216057308f)), cubic));
  } else if constexpr (kActivation == Activation::kSilu) {
    return TimesSigmoid(x, x);
  } else if constexpr (kActivation == Activation::kTanh) {
    return hn::Tanh(t, x);
  } else if constexpr (kActivation == Activation::kAbs) {
    return hn::Abs(x);
  } else {
    return x;
  }
}

template <Activation kActivation>
HWY_INLINE void ActivateAs(float* x, size_t count) {
  const FloatTag t;
  for (size_t i = 0; i < count; i += kLanes) {
    hn::StoreU(Activated<kActivation>(hn::LoadU(t, x + i)), t, x + i);
  }
}

// In place; `count` is a multiple of 16.
HWY_INLINE void ActivateRow(Activation activation, float* x, size_t count) {
  switch (activation) {
    case Activation::kNone:
      return;
    case Activation::kRelu:
      return ActivateAs<Activation::kRelu>(x, count);
    case Activation::kGelu:
      return ActivateAs<Activation::kGelu>(x, count);
    case Activation::kGeluTanh:
      return ActivateAs<Activation::kGeluTanh>(x, count);
    case Activation::kSilu:
      return ActivateAs<Activation::kSilu>(x, count);
    case Activation::kTanh:
      return ActivateAs<Activation::kTanh>(x, count);
    case Activation::kAbs:
      return ActivateAs<Activation::kAbs>(x, count);
  }
}

}  // namespace dimmer::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
