#include "engine/layers/rotary.h"

#include <cmath>

namespace dimmer {

// In fp32 where the reference implementations are: at high positions a rounding of the angle shows.
Rotary::Rotary(size_t head_dim, double theta) : frequencies_(head_dim / 2) {
  for (size_t i = 0; i < frequencies_.size(); ++i) {
    const auto exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    frequencies_[i] = 1.0f / static_cast<float>(std::pow(theta, double{exponent}));
  }
}

void Rotary::Angles(uint64_t position, std::span<float> cosines, std::span<float> sines) const {
  for (size_t i = 0; i < frequencies_.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies_[i];
    cosines[i] = std::cos(angle);
    sines[i] = std::sin(angle);
  }
}

void Rotary::Turn(std::span<const float> cosines, std::span<const float> sines, size_t heads,
                  float* values) const {
  const size_t count = half();
  for (size_t h = 0; h < heads; ++h) {
    float* low = values + h * 2 * count;
    float* high = low + count;
    for (size_t i = 0; i < count; ++i) {
      const float x = low[i];
      const float y = high[i];
      low[i] = x * cosines[i] - y * sines[i];
      high[i] = y * cosines[i] + x * sines[i];
    }
  }
}

}  // namespace dimmer
