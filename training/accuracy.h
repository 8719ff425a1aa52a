// How often a classifier in training is right.
#ifndef DIMMER_TRAINING_ACCURACY_H_
#define DIMMER_TRAINING_ACCURACY_H_

#include <cstdint>
#include <span>

#include "training/batch.h"
#include "training/trainee.h"

namespace dimmer {

// Share of rows whose largest logit is their label. `model` is a classifier.
double Accuracy(const Trainee& model, std::span<const Example> examples, uint32_t workers);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_ACCURACY_H_
