// Element-wise functions that a product can end in.
#ifndef DIMMER_ENGINE_KERNELS_ACTIVATION_H_
#define DIMMER_ENGINE_KERNELS_ACTIVATION_H_

#include <cstdint>

namespace dimmer {

enum class Activation : uint8_t {
  kNone,
  kRelu,
  kGelu,      // x * Phi(x), by erf
  kGeluTanh,  // the tanh approximation: "gelu_new", "gelu_pytorch_tanh"
  kSilu,      // x * sigmoid(x), "swish"
  kTanh,
  kAbs,  // router scores
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_KERNELS_ACTIVATION_H_
