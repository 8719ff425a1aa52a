// The `parameters` of an Open Inference request: budget, deadline, sampling.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_OIP_PARAMETERS_H_
#define DIMMER_SERVER_OIP_PARAMETERS_H_

#include <absl/status/statusor.h>
#include <google/protobuf/map.h>

#include <chrono>
#include <optional>
#include <string>

#include "engine/budget/budget.h"
#include "engine/engine.h"
#include "inference/open_inference.pb.h"

namespace dimmer {

struct OipParameters {
  Budget budget;
  bool truncate = false;
  std::optional<std::chrono::microseconds> timeout;
  GenerateOptions generate;
};

using OipParameterMap = google::protobuf::Map<std::string, inference::InferParameter>;

// Numbers may come as double, int64, uint64 or string. What Triton's clients add by themselves
// (priority, sequence_*, triton_*, binary_data_output) is ignored; any other name is an error,
// since a misspelt budget that is passed over would run the whole model. InvalidArgument names the
// parameter, or both of two budgets; otherwise as ValidateBudget. Those of GenerateOptions are
// known for Task::kGeneration only; `stop` is one string.
absl::StatusOr<OipParameters> DecodeParameters(const OipParameterMap& parameters, Task task);

}  // namespace dimmer

#endif  // DIMMER_SERVER_OIP_PARAMETERS_H_
