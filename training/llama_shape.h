// The sizes of a Llama language model, and the tensors that they imply.
#ifndef DIMMER_TRAINING_LLAMA_SHAPE_H_
#define DIMMER_TRAINING_LLAMA_SHAPE_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "training/layout.h"

namespace dimmer {

struct LlamaShape {
  int64_t width = 0;  // d
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t head_dim = 0;
  int64_t hidden = 0;  // d_ff
  int64_t vocab = 0;
  int64_t positions = 0;  // context length
  double norm_epsilon = 1e-6;
  double rope_theta = 10000;
  bool tied_head = false;
};

// Every tensor of a LlamaForCausalLM checkpoint without biases, in a fixed order.
ModelLayout LayoutOf(const LlamaShape& shape);

// What the engine's reader (engine/models/llama_config.h) says of config.json.
absl::StatusOr<LlamaShape> LlamaShapeOf(const nlohmann::json& config, const std::string& where);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_LLAMA_SHAPE_H_
