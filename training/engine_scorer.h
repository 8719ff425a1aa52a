// Scores windows of a text with the engine that serves the model.
#ifndef DIMMER_TRAINING_ENGINE_SCORER_H_
#define DIMMER_TRAINING_ENGINE_SCORER_H_

#include "engine/models/model.h"
#include "training/language_measure.h"

namespace dimmer {

// `model` can score (Task::kScoring), and must outlive the scorer.
WindowScorer EngineScorer(const Model& model);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_ENGINE_SCORER_H_
