#include "engine/util/float_formats.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "engine/package/safetensors.h"
#include "engine/util/status.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dimmer {

namespace {

uint16_t LoadU16(const std::byte* from) {
  uint16_t value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

void HalvesToFloatsScalar(const std::byte* from, size_t count, float* out) {
  for (size_t i = 0; i < count; ++i) out[i] = HalfToFloat(LoadU16(from + 2 * i));
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) void HalvesToFloatsF16c(const std::byte* from, size_t count,
                                                            float* out) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
  }
  HalvesToFloatsScalar(from + 2 * i, count - i, out + i);
}
#endif

void HalvesToFloats(const std::byte* from, size_t count, float* out) {
#if defined(__x86_64__)
  // Every processor with AVX2 has F16C too, whose own name not every compiler knows here.
  if (__builtin_cpu_supports("avx2")) return HalvesToFloatsF16c(from, count, out);
#endif
  HalvesToFloatsScalar(from, count, out);
}

// True if all are finite: an infinite or NaN value has all exponent bits set. No early exit, so
// that the loop vectorises.
bool AllFinite(std::span<const float> values) {
  uint32_t bad = 0;
  for (const float value : values) {
    bad |= static_cast<uint32_t>((std::bit_cast<uint32_t>(value) & 0x7f800000) == 0x7f800000);
  }
  return bad == 0;
}

}  // namespace

absl::Status ReadFloats(const TensorView& tensor, std::span<float> out) {
  const auto count = static_cast<size_t>(tensor.elements());
  if (out.size() != count) {
    return absl::InternalError(fmt::format("{}: tensor {}: {} elements into a buffer of {}",
                                           tensor.file, tensor.name, count, out.size()));
  }
  const std::byte* data = tensor.data.data();
  switch (tensor.dtype) {
    case DType::kF32:
      if (count > 0) std::memcpy(out.data(), data, count * sizeof(float));
      break;
    case DType::kF16:
      HalvesToFloats(data, count, out.data());
      break;
    case DType::kBF16:
      for (size_t i = 0; i < count; ++i) out[i] = BFloat16ToFloat(LoadU16(data + 2 * i));
      break;
    default:
      return absl::InvalidArgumentError(
          fmt::format("{}: tensor {}: found dtype {}, expected F32, "
                      "F16 or BF16",
                      tensor.file, tensor.name, DTypeName(tensor.dtype)));
  }
  if (AllFinite(out)) return absl::OkStatus();
  size_t index = 0;
  while (std::isfinite(out[index])) ++index;
  return absl::InvalidArgumentError(
      fmt::format("{}: tensor {}: found {} at index {}, expected finite values", tensor.file,
                  tensor.name, out[index], index));
}

}  // namespace dimmer
