#include "server/oip_tensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/util/status.h"

namespace dimmer {
namespace {

using inference::ModelInferRequest;
using inference::ModelInferResponse;

static_assert(std::endian::native == std::endian::little, "raw contents are little-endian");

absl::Status Wrong(std::string_view name, const std::string& what) {
  return absl::InvalidArgumentError(fmt::format("input {}: {}", name, what));
}

// Shapes beyond this cannot come with contents, whatever the message size.
constexpr int64_t kMaxElements = int64_t{1} << 31;

absl::StatusOr<int64_t> Elements(const ModelInferRequest::InferInputTensor& tensor) {
  int64_t elements = 1;
  for (int64_t side : tensor.shape()) {
    if (side < 0 || side > kMaxElements || elements * side > kMaxElements) {
      return Wrong(tensor.name(), fmt::format("found shape [{}], expected sides that are not "
                                              "negative and at most 2^31 elements",
                                              fmt::join(tensor.shape(), ", ")));
    }
    elements *= side;
  }
  return elements;
}

absl::StatusOr<std::vector<std::string>> RawBytes(std::string_view name, const std::string& raw,
                                                  int64_t elements) {
  std::vector<std::string> values;
  size_t at = 0;
  while (at < raw.size()) {
    if (static_cast<int64_t>(values.size()) == elements) {
      return Wrong(name, fmt::format("found {} bytes after the {} elements of the shape, expected "
                                     "none",
                                     raw.size() - at, elements));
    }
    uint32_t length = 0;
    if (raw.size() - at < sizeof(length)) {
      return Wrong(name, fmt::format("found {} bytes at offset {}, expected a 4-byte length",
                                     raw.size() - at, at));
    }
    std::memcpy(&length, raw.data() + at, sizeof(length));
    at += sizeof(length);
    if (raw.size() - at < length) {
      return Wrong(name, fmt::format("element {} has length {}, found {} bytes after it",
                                     values.size(), length, raw.size() - at));
    }
    values.emplace_back(raw, at, length);
    at += length;
  }
  if (static_cast<int64_t>(values.size()) != elements) {
    return Wrong(name, fmt::format("found {} elements in the contents, expected {} by the shape",
                                   values.size(), elements));
  }
  return values;
}

absl::Status WrongCount(std::string_view name, std::string_view field, int64_t found,
                        int64_t expected) {
  return Wrong(name, fmt::format("found {} elements in contents.{}, expected {} by the shape",
                                 found, field, expected));
}

}  // namespace

absl::StatusOr<OipInputs> OipInputs::Of(const ModelInferRequest& request) {
  OipInputs inputs;
  const int raw = request.raw_input_contents_size();
  if (raw != 0 && raw != request.inputs_size()) {
    return absl::InvalidArgumentError(
        fmt::format("raw_input_contents: found {}, expected none or one for each of the {} inputs",
                    raw, request.inputs_size()));
  }
  for (int i = 0; i < request.inputs_size(); ++i) {
    const auto& tensor = request.inputs(i);
    if (inputs.Has(tensor.name())) return Wrong(tensor.name(), "found twice");
    for (const auto& [parameter, value] : tensor.parameters()) {
      if (parameter.rfind("shared_memory", 0) == 0) {
        return Wrong(tensor.name(), "is in shared memory, expected its contents in the request");
      }
    }
    if (raw != 0 && tensor.has_contents()) {
      return Wrong(tensor.name(), "found both contents and raw_input_contents, expected one");
    }
    inputs.inputs_.push_back({&tensor, raw == 0 ? nullptr : &request.raw_input_contents(i)});
  }
  return inputs;
}

const OipInputs::Input* OipInputs::Find(std::string_view name) const {
  for (const Input& input : inputs_) {
    if (input.tensor->name() == name) return &input;
  }
  return nullptr;
}

absl::Status OipInputs::OnlyThese(std::span<const std::string_view> known) const {
  for (const Input& input : inputs_) {
    if (std::find(known.begin(), known.end(), input.tensor->name()) == known.end()) {
      return Wrong(input.tensor->name(),
                   fmt::format("not an input here, expected of {}", fmt::join(known, ", ")));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<const OipInputs::Input*> OipInputs::Get(std::string_view name,
                                                       std::string_view datatype, int rank) const {
  const Input* input = Find(name);
  if (input == nullptr) return Wrong(name, "not found, expected it");
  if (input->tensor->datatype() != datatype) {
    return Wrong(
        name, fmt::format("found datatype {}, expected {}", input->tensor->datatype(), datatype));
  }
  if (input->tensor->shape_size() != rank) {
    return Wrong(
        name, fmt::format("found shape [{}], expected {}", fmt::join(input->tensor->shape(), ", "),
                          rank == 1 ? "[N]" : "[N, T]"));
  }
  return input;
}

absl::StatusOr<int64_t> OipInputs::Rows(std::string_view name) const {
  const Input* input = Find(name);
  if (input == nullptr) return Wrong(name, "not found, expected it");
  if (input->tensor->shape_size() == 0)
    return Wrong(name, "found shape [], expected [N] or [N, T]");
  DIMMER_RETURN_IF_ERROR(Elements(*input->tensor).status());
  return input->tensor->shape(0);
}

absl::StatusOr<std::vector<std::string>> OipInputs::Bytes(std::string_view name) const {
  DIMMER_ASSIGN_OR_RETURN(const Input* input, Get(name, "BYTES", 1));
  DIMMER_ASSIGN_OR_RETURN(const int64_t elements, Elements(*input->tensor));
  if (input->raw != nullptr) return RawBytes(name, *input->raw, elements);
  const auto& contents = input->tensor->contents().bytes_contents();
  if (contents.size() != elements) {
    return WrongCount(name, "bytes_contents", contents.size(), elements);
  }
  return std::vector<std::string>(contents.begin(), contents.end());
}

absl::StatusOr<OipInputs::Matrix> OipInputs::Int64Matrix(std::string_view name) const {
  DIMMER_ASSIGN_OR_RETURN(const Input* input, Get(name, "INT64", 2));
  DIMMER_ASSIGN_OR_RETURN(const int64_t elements, Elements(*input->tensor));
  Matrix matrix{.rows = input->tensor->shape(0), .columns = input->tensor->shape(1), .values = {}};
  if (input->raw != nullptr) {
    if (input->raw->size() != static_cast<size_t>(elements) * sizeof(int64_t)) {
      return Wrong(name, fmt::format("found {} bytes of raw contents, expected {} by the shape",
                                     input->raw->size(), elements * int64_t{sizeof(int64_t)}));
    }
    matrix.values.resize(static_cast<size_t>(elements));
    if (elements > 0) std::memcpy(matrix.values.data(), input->raw->data(), input->raw->size());
    return matrix;
  }
  const auto& contents = input->tensor->contents().int64_contents();
  if (contents.size() != elements) {
    return WrongCount(name, "int64_contents", contents.size(), elements);
  }
  matrix.values.assign(contents.begin(), contents.end());
  return matrix;
}

absl::StatusOr<std::vector<int32_t>> OipInputs::TokenRow(std::string_view name, const Matrix& ids,
                                                         int64_t row, int64_t length,
                                                         uint32_t vocab_size) {
  std::vector<int32_t> tokens;
  tokens.reserve(static_cast<size_t>(length));
  for (int64_t i = 0; i < length; ++i) {
    const int64_t id = ids.values[static_cast<size_t>(row * ids.columns + i)];
    if (id < 0 || id >= int64_t{vocab_size}) {
      return Wrong(name, fmt::format("found {} at [{}, {}], expected an id in [0, {})", id, row, i,
                                     vocab_size));
    }
    tokens.push_back(static_cast<int32_t>(id));
  }
  return tokens;
}

namespace {

void AddOutput(const std::string& name, const char* datatype, const std::vector<int64_t>& shape,
               std::string raw, ModelInferResponse* response) {
  ModelInferResponse::InferOutputTensor* output = response->add_outputs();
  output->set_name(name);
  output->set_datatype(datatype);
  output->mutable_shape()->Add(shape.begin(), shape.end());
  response->add_raw_output_contents(std::move(raw));
}

}  // namespace

void AddBytesOutput(const std::string& name, std::span<const std::string> values,
                    ModelInferResponse* response) {
  std::string raw;
  for (const std::string& value : values) {
    const auto length = static_cast<uint32_t>(value.size());
    raw.append(reinterpret_cast<const char*>(&length), sizeof(length));
    raw += value;
  }
  AddOutput(name, "BYTES", {static_cast<int64_t>(values.size())}, std::move(raw), response);
}

void AddFloatOutput(const std::string& name, const std::vector<int64_t>& shape,
                    std::span<const float> values, ModelInferResponse* response) {
  std::string raw(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  AddOutput(name, "FP32", shape, std::move(raw), response);
}

void AddInt64Output(const std::string& name, const std::vector<int64_t>& shape,
                    std::span<const int64_t> values, ModelInferResponse* response) {
  std::string raw(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  AddOutput(name, "INT64", shape, std::move(raw), response);
}

}  // namespace dimmer
