#include "server/oip_call.h"

#include <algorithm>

#include "engine/util/status.h"
#include "server/oip_convert.h"

namespace dimmer {

absl::Status CheckInferId(const std::string& id) {
  if (id.size() <= kMaxInferId) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("id: found {} bytes, expected at most {}", id.size(), kMaxInferId));
}

absl::StatusOr<OipCall> DecodeOipCall(const Engine& engine,
                                      const inference::ModelInferRequest& message, size_t max_texts,
                                      RpcCall* call) {
  DIMMER_RETURN_IF_ERROR(CheckInferId(message.id()));
  OipCall decoded;
  DIMMER_ASSIGN_OR_RETURN(decoded.model,
                          engine.Find(message.model_name(), message.model_version()));
  call->SetModel(decoded.model->name, decoded.model->version);
  DIMMER_ASSIGN_OR_RETURN(decoded.outputs, WantedOutputs(message, decoded.model->model->info()));
  DIMMER_ASSIGN_OR_RETURN(decoded.request, DecodeInfer(message, *decoded.model, max_texts));
  decoded.request.deadline = std::min(decoded.request.deadline, call->deadline());
  return decoded;
}

}  // namespace dimmer
