// What the training kernels share: how a body is compiled for several instruction sets, and the
// hash behind dropout's masks. For kernel files only.
#ifndef DIMMER_TRAINING_KERNELS_INL_H_
#define DIMMER_TRAINING_KERNELS_INL_H_

#include <bit>
#include <cmath>
#include <cstdint>

#include "training/kernels.h"

// One body, compiled for AVX-512, AVX2 and plain x86-64, chosen when the program starts.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DIMMER_MULTIVERSION \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define DIMMER_INLINE inline __attribute__((always_inline))
#else
#define DIMMER_MULTIVERSION
#define DIMMER_INLINE inline
#endif

namespace dimmer {

// A 32-bit hash of (key, index) that vectorises: two rounds of a bit mixer with good avalanche.
DIMMER_INLINE uint32_t HashIndex(uint32_t index, uint32_t low, uint32_t high) {
  uint32_t x = index * 0x9E3779B9u + low;
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  x = (x ^ (x >> 16)) + high;
  x = (x ^ (x >> 16)) * 0x21F0AAADu;
  x = (x ^ (x >> 15)) * 0xD35A2D97u;
  return x ^ (x >> 15);
}

DIMMER_INLINE void FillMask(uint32_t first, uint32_t low, uint32_t high, uint32_t threshold,
                            float keep, int64_t count, float* mask) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t hash = HashIndex(first + static_cast<uint32_t>(i), low, high) >> 8;
    mask[i] = hash < threshold ? 0.0F : keep;
  }
}

struct MaskParameters {
  explicit MaskParameters(const Dropout& dropout)
      : low(static_cast<uint32_t>(dropout.key)),
        high(static_cast<uint32_t>(dropout.key >> 32)),
        threshold(static_cast<uint32_t>(std::lround(dropout.rate * 0x1.0p24))),
        keep(1 / (1 - dropout.rate)) {}
  uint32_t low, high, threshold;
  float keep;
};

// e^x for x <= 0, within 2e-7 of it; 0 far below. Vectorises: the range is reduced by a rounding
// that needs no conversion (Cephes' expf polynomial).
DIMMER_INLINE float ExpOfNegative(float x) {
  const float clamped = x < -87.0F ? -87.0F : x;
  const float shifted = clamped * 1.44269504F + 12582912.0F;  // 1.5 * 2^23: rounds to an integer
  const float n = shifted - 12582912.0F;
  const float r = (clamped - n * 0.693359375F) + n * 2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const float power = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) << 23) + 0x3F800000u);
  return x < -87.0F ? 0.0F : p * power;
}

}  // namespace dimmer

#endif  // DIMMER_TRAINING_KERNELS_INL_H_
