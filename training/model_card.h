// The README.md of a package.
#ifndef DIMMER_TRAINING_MODEL_CARD_H_
#define DIMMER_TRAINING_MODEL_CARD_H_

#include <span>
#include <string>
#include <vector>

#include "engine/package/package.h"
#include "training/measure.h"

namespace dimmer {

struct ModelCard {
  std::string title;
  std::string notes;  // the author's Markdown: data, licences, use; may be empty
  std::vector<std::string> labels;
  const MoeSpec* spec = nullptr;                   // with calibration and provenance
  const std::vector<SweepPoint>* sweep = nullptr;  // what the calibration was made of
  double keep_quality = 0.995;
};

std::string RenderModelCard(const ModelCard& card);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_MODEL_CARD_H_
