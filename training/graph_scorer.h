// Scores windows with the training graph: a GPT-2 with its routers, gated as the engine gates.
#ifndef DIMMER_TRAINING_GRAPH_SCORER_H_
#define DIMMER_TRAINING_GRAPH_SCORER_H_

#include <memory>
#include <vector>

#include "training/gpt2_trainee.h"
#include "training/language_measure.h"
#include "training/route.h"

namespace dimmer {

// `routers` by layer; none: a dense model, whatever tau. FLOPs as the engine counts them: the
// matrices' multiply-accumulates, pairs of a query and a key up to its own, routers at tau > 0.
WindowScorer GraphScorer(std::shared_ptr<const Gpt2Trainee> model, std::vector<Router> routers,
                         uint32_t experts);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_GRAPH_SCORER_H_
