// Scratch memory of one scheduler worker: a few buffers that grow to the largest batch seen and are
// used again for every layer and step.
//
// Thread safety: not thread-safe; a worker has its own. Threads inside a ParallelFor may share a
// buffer that was requested before it, each in its own part.
#ifndef DIMMER_ENGINE_LAYERS_WORKSPACE_H_
#define DIMMER_ENGINE_LAYERS_WORKSPACE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/kernels/aligned_buffer.h"

namespace dimmer {

class Workspace {
 public:
  enum Slot : uint8_t {
    // Of the model.
    kState,   // [tokens, d]
    kState2,  // [tokens, d]
    kHead,
    kLogits,  // [head rows, vocabulary]
    // Of a layer, during one call.
    kQkv,      // [tokens, 3 d]
    kContext,  // [tokens, d]
    kAttention,
    kRouterHidden,
    kScores,
    kHidden,
    kSlots,
  };

  // At least `count` floats, aligned, uninitialised. Valid until the same slot is asked for again.
  float* Floats(Slot slot, size_t count) {
    AlignedBuffer<float>& buffer = floats_[slot];
    if (buffer.size() < count) {
      buffer = AlignedBuffer<float>();  // never both at once
      buffer = AlignedBuffer<float>(count + count / 4);
    }
    return buffer.data();
  }

  // Routing state of MoeLayer, kept for its capacity.
  std::vector<uint32_t> routed_rows;
  std::vector<uint32_t> dense_rows;
  std::vector<uint8_t> mask;
  std::vector<uint32_t> group_rows;
  std::vector<uint32_t> group_offsets;

 private:
  std::array<AlignedBuffer<float>, kSlots> floats_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_WORKSPACE_H_
