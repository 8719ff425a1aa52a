// Which instruction sets the Highway kernels are compiled for. Include before any Highway header.
#ifndef DIMMER_ENGINE_KERNELS_HWY_TARGETS_H_
#define DIMMER_ENGINE_KERNELS_HWY_TARGETS_H_

// AVX-512 (AVX3) and AVX2 are what servers have; Highway's portable baseline keeps anything else
// working. The others would only add compile time.
#define HWY_DISABLED_TARGETS (HWY_AVX3_DL | HWY_SSE4 | HWY_SSSE3)

#endif  // DIMMER_ENGINE_KERNELS_HWY_TARGETS_H_
