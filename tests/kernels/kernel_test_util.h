// Shared by the kernel tests.
#ifndef DIMMER_TESTS_KERNELS_KERNEL_TEST_UTIL_H_
#define DIMMER_TESTS_KERNELS_KERNEL_TEST_UTIL_H_

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <span>
#include <vector>

#include "engine/kernels/aligned_buffer.h"
#include "engine/kernels/hwy_targets.h"
#include "engine/kernels/packed_matrix.h"
#include "engine/util/float_formats.h"
#include "hwy/highway.h"

namespace dimmer {

// Runs `body` once per instruction set that this machine has and the kernels are compiled for.
template <typename F>
void ForEachTarget(const F& body) {
  for (int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

inline std::vector<float> RandomFloats(size_t count, std::mt19937& random, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// Row-major [rows, columns] with the padded stride that kernels want. The padding is NaN, so that a
// kernel that reads it is caught.
inline AlignedBuffer<float> Padded(std::span<const float> values, size_t rows, size_t columns) {
  AlignedBuffer<float> padded(rows * PaddedWidth(columns));
  for (size_t i = 0; i < padded.size(); ++i) padded[i] = NAN;
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) {
      padded[r * PaddedWidth(columns) + c] = values[r * columns + c];
    }
  }
  return padded;
}

inline constexpr WeightFormat k16BitFormats[] = {WeightFormat::kF16, WeightFormat::kBF16};

// Each value to the nearest one that the format holds.
inline std::vector<float> Rounded(std::vector<float> values, WeightFormat format) {
  for (float& value : values) {
    if (format == WeightFormat::kF16) value = HalfToFloat(FloatToHalf(value));
    if (format == WeightFormat::kBF16) value = BFloat16ToFloat(FloatToBFloat16(value));
  }
  return values;
}

inline PackedMatrix Pack(std::span<const float> weights, size_t n, size_t k,
                         WeightFormat format = WeightFormat::kF32) {
  PackedMatrix packed(n, k, format);
  packed.PackColumns(0, weights);
  return packed;
}

inline AlignedBuffer<float> PadBias(std::span<const float> bias) {
  AlignedBuffer<float> padded(PaddedWidth(bias.size()));
  std::copy(bias.begin(), bias.end(), padded.data());
  return padded;
}

}  // namespace dimmer

#endif  // DIMMER_TESTS_KERNELS_KERNEL_TEST_UTIL_H_
