// Turns every FFN of a trained model into experts: a permutation of its neurons that makes
// each cluster of similar neurons one contiguous slab.
#ifndef DIMMER_TRAINING_SPLIT_H_
#define DIMMER_TRAINING_SPLIT_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "training/layout.h"

namespace dimmer {

// Reorders the neurons of `layer` in all of its FFN's tensors: position p takes neuron order[p].
// The layer's function is unchanged up to rounding.
void PermuteNeurons(const ModelLayout& layout, int64_t layer, std::span<const uint32_t> order,
                    WeightMap& weights);

struct SplitReport {
  std::vector<double> inertia;   // per layer, of the clustering
  std::vector<double> baseline;  // per layer, of consecutive neurons as clusters
};

// Splits all layers into `experts` each, on `workers` threads. `on_layer` hears of each finished
// layer, from any thread. Deterministic. InvalidArgument: `experts` does not divide layout.hidden.
absl::StatusOr<SplitReport> SplitIntoExperts(const ModelLayout& layout, uint32_t experts,
                                             uint64_t seed, uint32_t workers, WeightMap& weights,
                                             const std::function<void(int64_t layer)>& on_layer);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_SPLIT_H_
