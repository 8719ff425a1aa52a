// config.json of a BERT checkpoint, as `transformers` writes it.
#ifndef DIMMER_ENGINE_MODELS_BERT_CONFIG_H_
#define DIMMER_ENGINE_MODELS_BERT_CONFIG_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/kernels/activation.h"

namespace dimmer {

struct BertConfig {
  uint32_t vocab_size = 0;
  uint32_t hidden_size = 0;  // d
  uint32_t layers = 0;
  uint32_t heads = 0;
  uint32_t intermediate_size = 0;  // d_ff
  uint32_t max_positions = 0;
  uint32_t type_vocab_size = 0;
  float layer_norm_epsilon = 1e-12f;
  Activation activation = Activation::kGelu;
  bool classifier = false;
  std::vector<std::string> labels;  // by class; "LABEL_<i>" where the file has no names
  // Scores by sigmoid: problem_type "multi_label_classification", or a single label (as the
  // text-classification pipeline of `transformers` does).
  bool multi_label = false;
};

// InvalidArgument names the key, what was found and what was expected; Unimplemented, what this
// engine does not compute (relative positions, decoders, pruned heads, regression).
// `classifier`: the labels are read too, for BertForSequenceClassification.
absl::StatusOr<BertConfig> ParseBertConfig(const nlohmann::json& config, bool classifier,
                                           const std::string& where);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODELS_BERT_CONFIG_H_
