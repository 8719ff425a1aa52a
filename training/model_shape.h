// The model families that can be trained: the one place that lists them.
#ifndef DIMMER_TRAINING_MODEL_SHAPE_H_
#define DIMMER_TRAINING_MODEL_SHAPE_H_

#include <variant>

#include "training/bert_shape.h"
#include "training/gpt2_shape.h"
#include "training/llama_shape.h"

namespace dimmer {

// A family gives its sizes, LayoutOf(sizes), and a Trainee (training/trainee.h).
using ModelShape = std::variant<BertShape, Gpt2Shape, LlamaShape>;

inline ModelLayout LayoutOf(const ModelShape& shape) {
  return std::visit([](const auto& sizes) { return LayoutOf(sizes); }, shape);
}

}  // namespace dimmer

#endif  // DIMMER_TRAINING_MODEL_SHAPE_H_
