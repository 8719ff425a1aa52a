// Tensors of the Open Inference Protocol: out of a request, into a response. All input is hostile.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_OIP_TENSORS_H_
#define DIMMER_SERVER_OIP_TENSORS_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inference/open_inference.pb.h"

namespace dimmer {

// The inputs of a request by name. A view: the request must outlive it.
class OipInputs {
 public:
  // InvalidArgument: a name twice, contents both raw and typed, as many raw contents as not inputs,
  // a tensor in shared memory (which this server does not map).
  static absl::StatusOr<OipInputs> Of(const inference::ModelInferRequest& request);

  bool Has(std::string_view name) const { return Find(name) != nullptr; }
  // InvalidArgument if there is an input that is not among `known`.
  absl::Status OnlyThese(std::span<const std::string_view> known) const;

  // N by the shape, to be bounded before the contents are read. InvalidArgument: absent, no shape.
  absl::StatusOr<int64_t> Rows(std::string_view name) const;

  // A BYTES tensor [N]. InvalidArgument names the input and what is wrong: absent, datatype, shape,
  // length of the contents, an element that overruns them.
  absl::StatusOr<std::vector<std::string>> Bytes(std::string_view name) const;

  struct Matrix {
    int64_t rows = 0, columns = 0;
    std::vector<int64_t> values;  // [rows, columns]
  };
  // An INT64 tensor [N, T]. InvalidArgument as above.
  absl::StatusOr<Matrix> Int64Matrix(std::string_view name) const;

  // The first `length` values of a row as token ids. InvalidArgument names the one outside
  // [0, vocab_size).
  static absl::StatusOr<std::vector<int32_t>> TokenRow(std::string_view name, const Matrix& ids,
                                                       int64_t row, int64_t length,
                                                       uint32_t vocab_size);

 private:
  struct Input {
    const inference::ModelInferRequest::InferInputTensor* tensor = nullptr;
    const std::string* raw = nullptr;  // null: typed contents
  };
  const Input* Find(std::string_view name) const;
  absl::StatusOr<const Input*> Get(std::string_view name, std::string_view datatype,
                                   int rank) const;

  std::vector<Input> inputs_;
};

// Appends an output with raw contents; `shape` and the contents must agree.
void AddBytesOutput(const std::string& name, std::span<const std::string> values,
                    inference::ModelInferResponse* response);  // BYTES [N]
void AddFloatOutput(const std::string& name, const std::vector<int64_t>& shape,
                    std::span<const float> values,
                    inference::ModelInferResponse* response);  // FP32
void AddInt64Output(const std::string& name, const std::vector<int64_t>& shape,
                    std::span<const int64_t> values,
                    inference::ModelInferResponse* response);  // INT64

}  // namespace dimmer

#endif  // DIMMER_SERVER_OIP_TENSORS_H_
