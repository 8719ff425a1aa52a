#include "server/oip_convert.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <utility>

#include "engine/text/utf8.h"
#include "engine/util/status.h"
#include "server/convert.h"
#include "server/oip_parameters.h"
#include "server/oip_tensors.h"
#include "server/task_model.h"

namespace dimmer {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;
using TensorMetadata = inference::ModelMetadataResponse::TensorMetadata;

constexpr std::array<std::string_view, 4> kClassifierInputs = {"text", "text_pair", "input_ids",
                                                               "attention_mask"};
constexpr std::array<std::string_view, 1> kEmbedderInputs = {"text"};
constexpr std::array<std::string_view, 2> kGeneratorInputs = {"text", "input_ids"};

std::vector<std::string> OutputsOf(const ModelInfo& info) {
  if (OipTask(info) == Task::kEmbedding) return {"embedding"};
  if (OipTask(info) == Task::kGeneration) return {"text", "output_ids"};
  return {"label", "score", "logits"};
}

// The engine would refuse it too; here the message names the input.
absl::Status CheckUtf8(const std::string& name, const std::vector<std::string>& texts) {
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto bad = FindInvalidUtf8(texts[i]);
    if (!bad.has_value()) continue;
    return absl::InvalidArgumentError(
        fmt::format("input {}: element {} is not UTF-8 at byte {}", name, i, *bad));
  }
  return absl::OkStatus();
}

// By the shape alone: nothing is read for a call that is too large.
absl::Status CheckRows(const OipInputs& inputs, const std::string& name, size_t max_texts) {
  DIMMER_ASSIGN_OR_RETURN(const int64_t rows, inputs.Rows(name));
  return CheckCount("input " + name, static_cast<size_t>(rows), max_texts);
}

absl::Status DecodeTexts(const OipInputs& inputs, size_t max_texts, Request& request) {
  DIMMER_RETURN_IF_ERROR(CheckRows(inputs, "text", max_texts));
  DIMMER_ASSIGN_OR_RETURN(request.texts, inputs.Bytes("text"));
  DIMMER_RETURN_IF_ERROR(CheckUtf8("text", request.texts));
  if (!inputs.Has("text_pair")) return absl::OkStatus();
  DIMMER_RETURN_IF_ERROR(CheckRows(inputs, "text_pair", max_texts));
  DIMMER_ASSIGN_OR_RETURN(request.text_pairs, inputs.Bytes("text_pair"));
  if (request.text_pairs.size() != request.texts.size()) {
    return absl::InvalidArgumentError(
        fmt::format("input text_pair: found {} elements, expected one for each of the {} of text",
                    request.text_pairs.size(), request.texts.size()));
  }
  return CheckUtf8("text_pair", request.text_pairs);
}

// Tokens of a row: its mask is ones, then zeros.
absl::StatusOr<int64_t> RowLength(const OipInputs::Matrix& mask, int64_t row) {
  const int64_t* values = mask.values.data() + row * mask.columns;
  int64_t length = 0;
  while (length < mask.columns && values[length] == 1) ++length;
  for (int64_t i = length; i < mask.columns; ++i) {
    if (values[i] == 0) continue;
    return absl::InvalidArgumentError(fmt::format(
        "input attention_mask: found {} at [{}, {}], expected ones, then zeros (padding on the "
        "right)",
        values[i], row, i));
  }
  if (length > 0) return length;
  return absl::InvalidArgumentError(
      fmt::format("input attention_mask: row {} masks every token, expected at least one", row));
}

absl::Status DecodeIds(const OipInputs& inputs, const ModelInfo& info, size_t max_texts,
                       Request& request) {
  DIMMER_RETURN_IF_ERROR(CheckRows(inputs, "input_ids", max_texts));
  DIMMER_ASSIGN_OR_RETURN(const OipInputs::Matrix ids, inputs.Int64Matrix("input_ids"));
  DIMMER_ASSIGN_OR_RETURN(const OipInputs::Matrix mask, inputs.Int64Matrix("attention_mask"));
  if (ids.rows != mask.rows || ids.columns != mask.columns) {
    return absl::InvalidArgumentError(
        fmt::format("input attention_mask: found shape [{}, {}], expected that of input_ids, "
                    "[{}, {}]",
                    mask.rows, mask.columns, ids.rows, ids.columns));
  }
  for (int64_t row = 0; row < ids.rows; ++row) {
    DIMMER_ASSIGN_OR_RETURN(const int64_t length, RowLength(mask, row));
    if (length > info.max_tokens) {
      return absl::InvalidArgumentError(
          fmt::format("input input_ids: found {} tokens in row {}, expected at most {}", length,
                      row, info.max_tokens));
    }
    DIMMER_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                            OipInputs::TokenRow("input_ids", ids, row, length, info.vocab_size));
    request.token_ids.push_back(std::move(tokens));
  }
  return absl::OkStatus();
}

// One prompt, either way.
absl::Status DecodePrompt(const OipInputs& inputs, const ModelInfo& info, Request& request) {
  const std::string name = inputs.Has("input_ids") ? "input_ids" : "text";
  DIMMER_ASSIGN_OR_RETURN(const int64_t rows, inputs.Rows(name));
  if (rows != 1) {
    return absl::InvalidArgumentError(
        fmt::format("input {}: found {} prompts, expected one", name, rows));
  }
  if (name == "text") {
    DIMMER_ASSIGN_OR_RETURN(request.texts, inputs.Bytes("text"));
    return CheckUtf8("text", request.texts);
  }
  DIMMER_ASSIGN_OR_RETURN(const OipInputs::Matrix ids, inputs.Int64Matrix("input_ids"));
  if (ids.columns == 0) {
    return absl::InvalidArgumentError(
        "input input_ids: found shape [1, 0], expected at least one token");
  }
  DIMMER_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                          OipInputs::TokenRow("input_ids", ids, 0, ids.columns, info.vocab_size));
  request.token_ids = {std::move(tokens)};
  return absl::OkStatus();
}

TensorMetadata Describe(const char* name, const char* datatype, std::vector<int64_t> shape) {
  TensorMetadata tensor;
  tensor.set_name(name);
  tensor.set_datatype(datatype);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  return tensor;
}

void SetParameters(const Usage& usage,
                   google::protobuf::Map<std::string, inference::InferParameter>* out) {
  const double dense = double(usage.dense_flops);
  (*out)["tau"].set_double_param(usage.tau);
  (*out)["flop_fraction"].set_double_param(dense > 0 ? double(usage.flops) / dense : 1);
  const std::pair<const char*, uint64_t> counts[] = {
      {"flops", usage.flops},
      {"dense_flops", usage.dense_flops},
      {"queue_us", usage.queue_us},
      {"compute_us", usage.compute_us},
      {"prompt_tokens", usage.prompt_tokens},
      {"output_tokens", usage.output_tokens},
  };
  for (const auto& [name, value] : counts) {
    (*out)[name].set_int64_param(static_cast<int64_t>(value));
  }
  (*out)["budget_clamped"].set_bool_param(usage.budget_clamped);
  (*out)["degraded"].set_bool_param(usage.degraded);
  (*out)["truncated"].set_bool_param(usage.truncated);
}

// [N, C] from rows of C floats each.
void AddRows(const std::string& name, const std::vector<Result>& results,
             std::vector<float> Result::*field, ModelInferResponse* out) {
  std::vector<float> values;
  for (const Result& result : results) {
    values.insert(values.end(), (result.*field).begin(), (result.*field).end());
  }
  const auto rows = static_cast<int64_t>(results.size());
  const int64_t columns = rows == 0 ? 0 : static_cast<int64_t>((results[0].*field).size());
  AddFloatOutput(name, {rows, columns}, values, out);
}

}  // namespace

Task OipTask(const ModelInfo& info) {
  const auto does = [&](Task task) {
    return std::find(info.tasks.begin(), info.tasks.end(), task) != info.tasks.end();
  };
  if (does(Task::kClassification)) return Task::kClassification;
  return does(Task::kGeneration) ? Task::kGeneration : Task::kEmbedding;
}

void DescribeTensors(const ModelInfo& info, inference::ModelMetadataResponse* out) {
  *out->add_inputs() = Describe("text", "BYTES", {-1});
  if (OipTask(info) == Task::kEmbedding) {
    *out->add_outputs() = Describe("embedding", "FP32", {-1, int64_t{info.width}});
    return;
  }
  if (OipTask(info) == Task::kGeneration) {
    *out->mutable_inputs(0) = Describe("text", "BYTES", {1});
    *out->add_inputs() = Describe("input_ids", "INT64", {1, -1});
    *out->add_outputs() = Describe("text", "BYTES", {1});
    *out->add_outputs() = Describe("output_ids", "INT64", {1, -1});
    return;
  }
  *out->add_inputs() = Describe("text_pair", "BYTES", {-1});
  *out->add_inputs() = Describe("input_ids", "INT64", {-1, -1});
  *out->add_inputs() = Describe("attention_mask", "INT64", {-1, -1});
  *out->add_outputs() = Describe("label", "BYTES", {-1});
  *out->add_outputs() = Describe("score", "FP32", {-1});
  *out->add_outputs() = Describe("logits", "FP32", {-1, static_cast<int64_t>(info.labels.size())});
}

namespace {

inference::DataType ToDataType(const std::string& datatype) {
  if (datatype == "BYTES") return inference::TYPE_STRING;
  return datatype == "INT64" ? inference::TYPE_INT64 : inference::TYPE_FP32;
}

}  // namespace

void DescribeConfig(const ServedModel& model, inference::ModelConfig* out) {
  inference::ModelMetadataResponse tensors;
  DescribeTensors(model.model->info(), &tensors);
  out->set_name(model.name);
  out->set_platform(kOipPlatform);
  for (const TensorMetadata& tensor : tensors.inputs()) {
    inference::ModelInput* input = out->add_input();
    input->set_name(tensor.name());
    input->set_data_type(ToDataType(tensor.datatype()));
    *input->mutable_dims() = tensor.shape();
    input->set_optional(tensors.inputs_size() > 1);  // texts or ids
  }
  for (const TensorMetadata& tensor : tensors.outputs()) {
    inference::ModelOutput* output = out->add_output();
    output->set_name(tensor.name());
    output->set_data_type(ToDataType(tensor.datatype()));
    *output->mutable_dims() = tensor.shape();
  }
  out->mutable_model_transaction_policy()->set_decoupled(OipTask(model.model->info()) ==
                                                         Task::kGeneration);
}

absl::StatusOr<Request> DecodeInfer(const ModelInferRequest& message, const ServedModel& model,
                                    size_t max_texts) {
  const ModelInfo& info = model.model->info();
  Request request;
  request.model = model.name;
  request.version = model.version;
  request.task = OipTask(info);
  DIMMER_ASSIGN_OR_RETURN(const OipParameters parameters,
                          DecodeParameters(message.parameters(), request.task));
  request.budget = parameters.budget;
  request.truncate = parameters.truncate;
  if (parameters.timeout.has_value()) {
    request.deadline = std::chrono::steady_clock::now() + *parameters.timeout;
  }
  DIMMER_ASSIGN_OR_RETURN(const OipInputs inputs, OipInputs::Of(message));
  if (request.task == Task::kEmbedding) {
    DIMMER_RETURN_IF_ERROR(inputs.OnlyThese(kEmbedderInputs));
  } else if (request.task == Task::kGeneration) {
    DIMMER_RETURN_IF_ERROR(inputs.OnlyThese(kGeneratorInputs));
  } else {
    DIMMER_RETURN_IF_ERROR(inputs.OnlyThese(kClassifierInputs));
  }
  const bool has_ids = inputs.Has("input_ids") || inputs.Has("attention_mask");
  if (has_ids && (inputs.Has("text") || inputs.Has("text_pair"))) {
    return absl::InvalidArgumentError(
        "inputs: found both text and input_ids or attention_mask, expected one kind");
  }
  if (request.task == Task::kGeneration) {
    request.generate = parameters.generate;
    DIMMER_RETURN_IF_ERROR(DecodePrompt(inputs, info, request));
    return request;
  }
  DIMMER_RETURN_IF_ERROR(has_ids ? DecodeIds(inputs, info, max_texts, request)
                                 : DecodeTexts(inputs, max_texts, request));
  return request;
}

absl::StatusOr<std::vector<std::string>> WantedOutputs(const ModelInferRequest& message,
                                                       const ModelInfo& info) {
  const std::vector<std::string> known = OutputsOf(info);
  if (message.outputs_size() == 0) return known;
  std::vector<std::string> wanted;
  for (const auto& output : message.outputs()) {
    if (std::find(known.begin(), known.end(), output.name()) == known.end()) {
      std::string names;
      for (const std::string& name : known) names += (names.empty() ? "" : ", ") + name;
      return absl::InvalidArgumentError(
          fmt::format("output {}: not an output here, expected of {}", output.name(), names));
    }
    if (std::find(wanted.begin(), wanted.end(), output.name()) != wanted.end()) {
      return absl::InvalidArgumentError(fmt::format("output {}: found twice", output.name()));
    }
    for (const auto& [parameter, value] : output.parameters()) {
      if (parameter == "classification" || parameter.rfind("shared_memory", 0) == 0) {
        return absl::InvalidArgumentError(
            fmt::format("output {}: parameter {} is not supported here", output.name(), parameter));
      }
    }
    wanted.push_back(output.name());
  }
  return wanted;
}

namespace {

void AddGenerated(const std::vector<std::string>& outputs, const std::string& text,
                  std::span<const int32_t> ids, ModelInferResponse* out) {
  for (const std::string& name : outputs) {
    if (name == "text") {
      AddBytesOutput(name, std::span(&text, 1), out);
    } else {
      AddInt64Output(name, {1, static_cast<int64_t>(ids.size())},
                     std::vector<int64_t>(ids.begin(), ids.end()), out);
    }
  }
}

void SetFinal(bool final, ModelInferResponse* out) {
  (*out->mutable_parameters())["triton_final_response"].set_bool_param(final);
}

// What all answers to a generation say once.
void SetEnd(const Response& response, ModelInferResponse* out) {
  const Result& result = response.results.front();
  auto& parameters = *out->mutable_parameters();
  parameters["finish_reason"].set_string_param(std::string(FinishReasonName(result.finish_reason)));
  inference::InferParameter& seed = parameters["seed"];
  if (result.seed <= uint64_t{std::numeric_limits<int64_t>::max()}) {
    seed.set_int64_param(static_cast<int64_t>(result.seed));
  } else {
    seed.set_uint64_param(result.seed);
  }
}

}  // namespace

void EncodePiece(const Piece& piece, const ServedModel& model,
                 const std::vector<std::string>& outputs, ModelInferResponse* out) {
  out->set_model_name(model.name);
  out->set_model_version(model.version);
  AddGenerated(outputs, piece.text, piece.ids, out);
  SetFinal(false, out);
}

void EncodeFinal(const Response& response, const ModelInfo& info,
                 const std::vector<std::string>& outputs, ModelInferResponse* out) {
  if (OipTask(info) != Task::kGeneration) {
    EncodeInfer(response, info, outputs, out);
  } else {
    out->set_model_name(response.model);
    out->set_model_version(response.version);
    SetParameters(response.usage, out->mutable_parameters());
    SetEnd(response, out);
    AddGenerated(outputs, "", {}, out);
  }
  SetFinal(true, out);
}

void EncodeInfer(const Response& response, const ModelInfo& info,
                 const std::vector<std::string>& outputs, ModelInferResponse* out) {
  out->set_model_name(response.model);
  out->set_model_version(response.version);
  SetParameters(response.usage, out->mutable_parameters());
  const std::vector<Result>& results = response.results;
  if (OipTask(info) == Task::kGeneration) {
    SetEnd(response, out);
    AddGenerated(outputs, results.front().text, results.front().output_ids, out);
    return;
  }
  for (const std::string& name : outputs) {
    if (name == "label") {
      std::vector<std::string> labels;
      labels.reserve(results.size());
      for (const Result& r : results) labels.push_back(LabelName(info.labels, BestIndex(r.scores)));
      AddBytesOutput(name, labels, out);
    } else if (name == "score") {
      std::vector<float> scores;
      scores.reserve(results.size());
      for (const Result& r : results) scores.push_back(r.scores[BestIndex(r.scores)]);
      AddFloatOutput(name, {static_cast<int64_t>(scores.size())}, scores, out);
    } else if (name == "logits") {
      AddRows(name, results, &Result::logits, out);
    } else {
      AddRows(name, results, &Result::embedding, out);
    }
  }
}

}  // namespace dimmer
