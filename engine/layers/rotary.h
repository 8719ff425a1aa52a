// Rotary position embedding (Su et al. 2021), in the layout of Hugging Face checkpoints: column i
// of a head turns together with column i + head_dim / 2.
//
// Thread safety: immutable once made.
#ifndef DIMMER_ENGINE_LAYERS_ROTARY_H_
#define DIMMER_ENGINE_LAYERS_ROTARY_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace dimmer {

class Rotary {
 public:
  // `head_dim` is even.
  Rotary(size_t head_dim, double theta);

  // Cosines and sines of `position`, [head_dim / 2] each, for any number of Turn().
  void Angles(uint64_t position, std::span<float> cosines, std::span<float> sines) const;
  // Turns `heads` heads in place, `head_dim` floats each, one after the other.
  void Turn(std::span<const float> cosines, std::span<const float> sines, size_t heads,
            float* values) const;

  size_t half() const { return frequencies_.size(); }

 private:
  std::vector<float> frequencies_;  // theta^(-2i / head_dim)
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_ROTARY_H_
