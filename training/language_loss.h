// The validation loss of a language model in training.
#ifndef DIMMER_TRAINING_LANGUAGE_LOSS_H_
#define DIMMER_TRAINING_LANGUAGE_LOSS_H_

#include <cstdint>
#include <span>

#include "training/blocks.h"
#include "training/trainer.h"

namespace dimmer {

// Sum of -ln p of all next_ids, without dropout.
double TotalNats(const Trainee& model, std::span<const Example> examples, uint32_t workers);

// Bits per byte over `documents`, of which `rows` are the windows. Nothing is owned.
EpochCheck ValidationCheck(std::span<const TokenizedDocument> documents,
                           std::span<const Example> rows, uint32_t workers);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_LANGUAGE_LOSS_H_
