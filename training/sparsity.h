// What an FFN's hidden values pass through, and what is penalised of them, while a model learns to
// activate few of its neurons (ALGORITHM.md, section 1; Szatkowski et al. 2024, Eq. 1 and 5).
#ifndef DIMMER_TRAINING_SPARSITY_H_
#define DIMMER_TRAINING_SPARSITY_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/kernels/activation.h"

namespace dimmer {

// Of one token's values a, summed over tokens and layers.
enum class Penalty : uint8_t {
  kSquareHoyer,  // (sum |a|)^2 / (sum a^2 + 1e-15), in [0, d_ff]
  kL1,           // sum |a|
};
std::string PenaltyName(Penalty penalty);   // "hoyer", "l1": of options, and keys of reports
std::string PenaltyTitle(Penalty penalty);  // "square Hoyer", "L1"
// Which one an epoch's report tells of.
Penalty PenaltyOf(const nlohmann::json& epoch);

struct Sparsity {
  // ReLU, GELU or SiLU. Of ReLU its values are penalised, of a gate (of any function) those of
  // relu(gate), of others max(pre, kDisplacement) - kDisplacement, so that a neuron that is driven
  // to where the function is flat and next to 0 costs nothing.
  Activation activation = Activation::kRelu;
  Penalty penalty = Penalty::kSquareHoyer;
};
inline constexpr float kDisplacement = -10;
// Values of a smooth function that count as active are larger than this by magnitude.
inline constexpr float kQuiet = 0.01F;

}  // namespace dimmer

#endif  // DIMMER_TRAINING_SPARSITY_H_
