// Between Open Inference messages and the engine's Request and Response.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_OIP_CONVERT_H_
#define DIMMER_SERVER_OIP_CONVERT_H_

#include <absl/status/statusor.h>

#include <cstddef>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "inference/open_inference.pb.h"

namespace dimmer {

// What ModelInfer does with a model: classification where it can, else embedding.
Task OipTask(const ModelInfo& info);

// Names, datatypes and shapes, as the protocol's ModelMetadata lists them.
void DescribeTensors(const ModelInfo& info, inference::ModelMetadataResponse* out);

// Inputs, parameters and deadline (of `timeout` alone). InvalidArgument names the input or
// parameter.
absl::StatusOr<Request> DecodeInfer(const inference::ModelInferRequest& message,
                                    const ServedModel& model, size_t max_texts);

// The outputs asked for, all if none is named. InvalidArgument names one that the model has not.
absl::StatusOr<std::vector<std::string>> WantedOutputs(const inference::ModelInferRequest& message,
                                                       const ModelInfo& info);

void EncodeInfer(const Response& response, const ModelInfo& info,
                 const std::vector<std::string>& outputs, inference::ModelInferResponse* out);

}  // namespace dimmer

#endif  // DIMMER_SERVER_OIP_CONVERT_H_
