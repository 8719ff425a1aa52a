// config.json of a Llama checkpoint, as `transformers` writes it.
#ifndef DIMMER_ENGINE_MODELS_LLAMA_CONFIG_H_
#define DIMMER_ENGINE_MODELS_LLAMA_CONFIG_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/kernels/activation.h"

namespace dimmer {

struct LlamaConfig {
  uint32_t vocab_size = 0;
  uint32_t width = 0;  // hidden_size, d
  uint32_t layers = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;  // divides heads
  uint32_t head_dim = 0;  // even
  uint32_t hidden = 0;    // intermediate_size, d_ff
  uint32_t max_positions = 0;
  float rms_norm_epsilon = 1e-6f;
  double rope_theta = 10000;
  Activation activation = Activation::kSilu;  // of the gate
  bool attention_bias = false;                // of all four projections
  bool tied_head = false;
  std::vector<int32_t> end_ids;
};

// InvalidArgument names the key, what was found and what was expected; Unimplemented, what this
// engine does not compute (scaled or partial rotary embeddings, biases in the FFN).
absl::StatusOr<LlamaConfig> ParseLlamaConfig(const nlohmann::json& config,
                                             const std::string& where);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODELS_LLAMA_CONFIG_H_
