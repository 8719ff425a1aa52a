// Fills the engine from the model repositories at start.
//
// Thread safety: call from one thread; models load side by side on threads of its own.
#ifndef DIMMER_SERVER_REPOSITORY_LOADER_H_
#define DIMMER_SERVER_REPOSITORY_LOADER_H_

#include <absl/status/status.h>

#include "engine/engine.h"
#include "server/config.h"

namespace dimmer {

// Loads what config.model_control_mode asks for. A model that cannot be loaded is logged, stays in
// Engine::Models() with its reason, and disturbs nothing else.
// NotFound: a repository, or a model of --load-model, is not there. InvalidArgument: a model lies
// in two repositories.
absl::Status LoadRepositories(const Config& config, Engine& engine);

}  // namespace dimmer

#endif  // DIMMER_SERVER_REPOSITORY_LOADER_H_
