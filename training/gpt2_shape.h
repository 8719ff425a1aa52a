// The sizes of a GPT-2 language model, and the tensors that they imply.
#ifndef DIMMER_TRAINING_GPT2_SHAPE_H_
#define DIMMER_TRAINING_GPT2_SHAPE_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "training/layout.h"

namespace dimmer {

struct Gpt2Shape {
  int64_t width = 0;  // d
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t hidden = 0;  // d_ff
  int64_t vocab = 0;
  int64_t positions = 0;  // context length
  double norm_epsilon = 1e-5;
  double embedding_dropout = 0.1;
  double attention_dropout = 0.1;  // of attention probabilities
  double residual_dropout = 0.1;   // of the blocks' outputs
};

// Every tensor of a GPT2LMHeadModel checkpoint with a tied head, in a fixed order. Linear layers
// are stored [in, out].
ModelLayout LayoutOf(const Gpt2Shape& shape);

// config.json of `transformers`, both ways. InvalidArgument names the key, what was found and what
// was expected; Unimplemented, what is not trained here (untied heads, other attention scales).
absl::StatusOr<Gpt2Shape> Gpt2ShapeOf(const nlohmann::json& config, const std::string& where);
nlohmann::json Gpt2ConfigJson(const Gpt2Shape& shape);

// Fresh weights as GPT-2 draws them (Radford et al. 2019): N(0, 0.02), the blocks' output matrices
// by sqrt(2 * layers) smaller, biases 0, norms 1.
WeightMap DrawGpt2(const Gpt2Shape& shape, uint64_t seed);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_GPT2_SHAPE_H_
