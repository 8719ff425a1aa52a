// Turns every FFN of a trained classifier into experts: a permutation of its neurons that makes
// each cluster of similar neurons one contiguous slab.
#ifndef DIMMER_TRAINING_SPLIT_H_
#define DIMMER_TRAINING_SPLIT_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "training/bert_shape.h"

namespace dimmer {

using WeightMap = std::map<std::string, std::vector<float>>;  // by Hugging Face name

// Reorders the rows of intermediate.dense and the columns of output.dense of `layer`: position p
// takes neuron order[p]. The layer's function is unchanged up to rounding.
void PermuteNeurons(const BertShape& shape, int64_t layer, std::span<const uint32_t> order,
                    WeightMap& weights);

struct SplitReport {
  std::vector<double> inertia;   // per layer, of the clustering
  std::vector<double> baseline;  // per layer, of consecutive neurons as clusters
};

// Splits all layers into `experts` each, on `workers` threads. `on_layer` hears of each finished
// layer, from any thread. Deterministic. InvalidArgument: `experts` does not divide shape.hidden.
absl::StatusOr<SplitReport> SplitIntoExperts(const BertShape& shape, uint32_t experts,
                                             uint64_t seed, uint32_t workers, WeightMap& weights,
                                             const std::function<void(int64_t layer)>& on_layer);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_SPLIT_H_
