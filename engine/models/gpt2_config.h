// config.json of a GPT-2 checkpoint, as `transformers` writes it.
#ifndef DIMMER_ENGINE_MODELS_GPT2_CONFIG_H_
#define DIMMER_ENGINE_MODELS_GPT2_CONFIG_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/kernels/activation.h"

namespace dimmer {

struct Gpt2Config {
  uint32_t vocab_size = 0;
  uint32_t width = 0;  // n_embd, d
  uint32_t layers = 0;
  uint32_t heads = 0;
  uint32_t hidden = 0;  // n_inner, d_ff
  uint32_t max_positions = 0;
  float layer_norm_epsilon = 1e-5f;
  Activation activation = Activation::kGeluTanh;
  bool tied_head = true;         // the head's matrix is that of the token embedding
  std::vector<int32_t> end_ids;  // eos_token_id, where it is in the vocabulary
};

// InvalidArgument names the key, what was found and what was expected; Unimplemented, what this
// engine does not compute (cross attention, scaling by layer, unscaled scores).
absl::StatusOr<Gpt2Config> ParseGpt2Config(const nlohmann::json& config, const std::string& where);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODELS_GPT2_CONFIG_H_
