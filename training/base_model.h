// The checkpoint that a conversion starts from.
#ifndef DIMMER_TRAINING_BASE_MODEL_H_
#define DIMMER_TRAINING_BASE_MODEL_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "engine/kernels/activation.h"
#include "training/model_shape.h"

namespace dimmer {

struct BaseModel {
  ModelShape shape;
  ModelLayout layout;                         // of `shape`
  WeightMap weights;                          // all of layout.tensors
  nlohmann::json config;                      // config.json as found
  Activation activation = Activation::kRelu;  // of the FFNs
  std::vector<int32_t> end_ids;               // a language model's, that end a text; may be none
  bool fresh_pooler = false;                  // drawn from the seed, not in the checkpoint
  bool fresh_classifier = false;
};

// Opens a Hugging Face BertModel or BertForSequenceClassification directory as a classifier of
// `labels`. A classifier whose labels are exactly these is kept (its rows in the order of
// `labels`); otherwise, and for a missing pooler, weights are drawn from N(0, initializer_range) by
// `seed`. Unimplemented: another architecture or position embedding. Else what Package::Open
// returns.
absl::StatusOr<BaseModel> LoadBaseClassifier(const std::string& directory,
                                             std::span<const std::string> labels, uint64_t seed);

// Opens a GPT2LMHeadModel directory with a tied head, or a LlamaForCausalLM directory without
// biases. Unimplemented: another architecture, or what Gpt2ShapeOf() and LlamaShapeOf() refuse.
// Else what Package::Open returns.
absl::StatusOr<BaseModel> LoadBaseLanguageModel(const std::string& directory);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_BASE_MODEL_H_
