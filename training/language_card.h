// The README.md of a language model's package.
#ifndef DIMMER_TRAINING_LANGUAGE_CARD_H_
#define DIMMER_TRAINING_LANGUAGE_CARD_H_

#include <string>

#include "training/conversion_task.h"

namespace dimmer {

// `loss_increase`: what the default tau may lose, as a share.
std::string RenderLanguageCard(const PackageFacts& facts, double loss_increase);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_LANGUAGE_CARD_H_
