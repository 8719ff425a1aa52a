// What ModelInfer and each request of ModelStreamInfer have in common: from the message to the
// engine's request.
//
// Thread safety: pure functions over the engine, which is thread-safe.
#ifndef DIMMER_SERVER_OIP_CALL_H_
#define DIMMER_SERVER_OIP_CALL_H_

#include <absl/status/statusor.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "inference/open_inference.pb.h"
#include "server/rpc_call.h"

namespace dimmer {

// Bytes of a request's id, which every answer repeats.
inline constexpr size_t kMaxInferId = 1024;

// InvalidArgument if the id is longer.
absl::Status CheckInferId(const std::string& id);

struct OipCall {
  std::shared_ptr<const ServedModel> model;
  std::vector<std::string> outputs;  // those asked for
  Request request;                   // until the client's deadline, or that of the message
};

// Counts `call` under the model. Errors: as CheckInferId, Engine::Find, WantedOutputs and
// DecodeInfer.
absl::StatusOr<OipCall> DecodeOipCall(const Engine& engine,
                                      const inference::ModelInferRequest& message, size_t max_texts,
                                      RpcCall* call);

}  // namespace dimmer

#endif  // DIMMER_SERVER_OIP_CALL_H_
