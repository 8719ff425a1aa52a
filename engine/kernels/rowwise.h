// Kernels over single rows: each row's result depends on that row alone, with reductions in an
// order that the width fixes.
//
// Thread safety: pure functions.
#ifndef DIMMER_ENGINE_KERNELS_ROWWISE_H_
#define DIMMER_ENGINE_KERNELS_ROWWISE_H_

#include <cstddef>
#include <cstdint>

#include "engine/kernels/activation.h"

namespace dimmer {

// out[0:d] = (x - mean) / sqrt(variance + epsilon) * gamma + beta. `out` may be `x`. All of them
// have room for PaddedWidth(d) floats; what the padding holds does not matter.
void LayerNormRow(const float* x, const float* gamma, const float* beta, size_t d, float epsilon,
                  float* out);

// out[0:d] = x / sqrt(mean of squares + epsilon) * gamma (Zhang and Sennrich 2019). As above.
void RmsNormRow(const float* x, const float* gamma, size_t d, float epsilon, float* out);

// out[i] = a[i] + b[i], i < PaddedWidth(d).
void AddRow(const float* a, const float* b, size_t d, float* out);

// x[i] *= y[i], i < PaddedWidth(count).
void MultiplyRow(const float* y, size_t count, float* x);

// x = activation(x) over PaddedWidth(count) floats.
void Activate(Activation activation, float* x, size_t count);

// out[i] = exp((x[i] - shift) * scale), i < count, to a few units in the last place (0 below
// 1e-43); returns their sum. x at most `shift`, minus infinity included; `scale` finite and not
// negative. `out` may be null. Any count, any alignment. The sum is taken in float over 1024 at a
// time.
double ExpShifted(const float* x, size_t count, float shift, float scale, float* out);

// out += table row, 16-bit formats converted. Any count, any alignment.
void AddFloat(const float* row, size_t count, float* out);
void AddHalf(const uint16_t* row, size_t count, float* out);
void AddBFloat16(const uint16_t* row, size_t count, float* out);

// The instruction set in use, as Highway names it ("AVX3", "AVX2").
const char* InstructionSet();

}  // namespace dimmer

#endif  // DIMMER_ENGINE_KERNELS_ROWWISE_H_
