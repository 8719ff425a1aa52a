// Finds the model that a call names and checks that it does what is asked.
//
// Thread safety: pure functions over the engine, which is thread-safe.
#ifndef DIMMER_SERVER_TASK_MODEL_H_
#define DIMMER_SERVER_TASK_MODEL_H_

#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "engine/engine.h"
#include "server/rpc_call.h"

namespace dimmer {

// Counts `call` under the model. InvalidArgument: the model does not do `task`; names those it
// does. Otherwise as Engine::Find.
absl::StatusOr<std::shared_ptr<const ServedModel>> FindForTask(const Engine& engine,
                                                               const std::string& model,
                                                               const std::string& version,
                                                               Task task, RpcCall* call);

// InvalidArgument unless `count` texts, in `field`, are from 1 to `max_texts`.
absl::Status CheckCount(const std::string& field, size_t count, size_t max_texts);

}  // namespace dimmer

#endif  // DIMMER_SERVER_TASK_MODEL_H_
