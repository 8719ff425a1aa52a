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

inline constexpr const char* kOipPlatform = "dimmer";

// What ModelInfer does with a model: classification where it can, else generation or embedding.
Task OipTask(const ModelInfo& info);

// Names, datatypes and shapes, as the protocol's ModelMetadata lists them.
void DescribeTensors(const ModelInfo& info, inference::ModelMetadataResponse* out);

// The same as Triton's model configuration.
void DescribeConfig(const ServedModel& model, inference::ModelConfig* out);

// Inputs, parameters and deadline (of `timeout` alone). InvalidArgument names the input or
// parameter.
absl::StatusOr<Request> DecodeInfer(const inference::ModelInferRequest& message,
                                    const ServedModel& model, size_t max_texts);

// The outputs asked for, all if none is named. InvalidArgument names one that the model has not.
absl::StatusOr<std::vector<std::string>> WantedOutputs(const inference::ModelInferRequest& message,
                                                       const ModelInfo& info);

void EncodeInfer(const Response& response, const ModelInfo& info,
                 const std::vector<std::string>& outputs, inference::ModelInferResponse* out);

// Of a stream: a part of a generation, and what ends each request's answers, which for a generation
// has no more text. "triton_final_response" tells them apart, as in Triton's decoupled models.
void EncodePiece(const Piece& piece, const ServedModel& model,
                 const std::vector<std::string>& outputs, inference::ModelInferResponse* out);
void EncodeFinal(const Response& response, const ModelInfo& info,
                 const std::vector<std::string>& outputs, inference::ModelInferResponse* out);

}  // namespace dimmer

#endif  // DIMMER_SERVER_OIP_CONVERT_H_
