// What generation and scoring add to a request's walk: their checks, and sequences for models that
// keep keys and values.
#ifndef DIMMER_ENGINE_GENERATE_REQUEST_H_
#define DIMMER_ENGINE_GENERATE_REQUEST_H_

#include <absl/status/status.h>

#include "engine/request_walk.h"

namespace dimmer {

// For Task::kGeneration and kScoring. InvalidArgument names the field.
absl::Status CheckGenerate(const Request& request, const LoadedModel& model);

// Completes a sequence that has its prompt: how many tokens it may get, how they are sampled, and
// its plan. InvalidArgument names the lengths that exceed the context; else what PlanGeneration
// returns.
absl::Status PrepareGeneration(const Request& request, const LoadedModel& model,
                               const TauSettings& settings, Sequence& sequence);

// The token from which an empty prompt starts. InvalidArgument if the model has none.
absl::StatusOr<int32_t> FirstToken(const LoadedModel& model);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_GENERATE_REQUEST_H_
