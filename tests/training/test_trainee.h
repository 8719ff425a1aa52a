// A small trainee and a task that it can learn, for the tests of training.
#ifndef DIMMER_TESTS_TRAINING_TEST_TRAINEE_H_
#define DIMMER_TESTS_TRAINING_TEST_TRAINEE_H_

#include <vector>

#include "tests/models/test_packages.h"
#include "training/bert_trainee.h"
#include "training/random.h"

namespace dimmer {

inline BertShape ShapeOf(const TestBert& bert) {
  return {.width = bert.hidden_size,
          .layers = bert.layers,
          .heads = bert.heads,
          .hidden = bert.intermediate_size,
          .vocab = bert.vocab_size,
          .positions = bert.max_positions,
          .types = 2,
          .classes = bert.labels};
}

inline std::map<std::string, std::vector<float>> WeightsOf(const TestBert& bert) {
  std::map<std::string, std::vector<float>> weights;
  for (auto& [name, tensor] : bert.Weights()) weights[name] = tensor.values;
  return weights;
}

// Label 1 where token 7 occurs, else 0.
inline std::vector<Example> FindTheToken(const TestBert& bert, uint32_t count, uint64_t seed) {
  std::vector<Example> examples;
  RandomStream random(seed);
  for (uint32_t i = 0; i < count; ++i) {
    Example example;
    example.label = static_cast<int32_t>(i % 2);
    example.ids.push_back(2);
    const uint64_t length = 3 + random.Below(6);
    for (uint64_t t = 0; t < length; ++t) {
      example.ids.push_back(static_cast<int32_t>(8 + random.Below(bert.vocab_size - 8)));
    }
    if (example.label == 1) example.ids[1 + random.Below(length)] = 7;
    example.type_ids.assign(example.ids.size(), 0);
    examples.push_back(example);
  }
  return examples;
}

}  // namespace dimmer

#endif  // DIMMER_TESTS_TRAINING_TEST_TRAINEE_H_
