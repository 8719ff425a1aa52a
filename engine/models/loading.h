// What the loaders of all model families share: from tensors on disk to packed layers.
//
// Thread safety: functions of their arguments; a TensorReader may be used by several threads.
#ifndef DIMMER_ENGINE_MODELS_LOADING_H_
#define DIMMER_ENGINE_MODELS_LOADING_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/kernels/aligned_buffer.h"
#include "engine/layers/embedding.h"
#include "engine/layers/layer_norm.h"
#include "engine/layers/linear.h"
#include "engine/layers/lm_head.h"
#include "engine/layers/moe_layer.h"
#include "engine/models/model.h"
#include "engine/package/package.h"

namespace dimmer {

// How a checkpoint stores the matrix of a linear layer.
enum class MatrixLayout : uint8_t {
  kOutIn,  // [outputs, inputs], as torch.nn.Linear
  kInOut,  // [inputs, outputs], as the Conv1D of GPT-2 in `transformers`
};

enum class Bias : uint8_t { kRequired, kIfPresent, kNone };

// Outputs of a linear layer that are stored as one tensor, `name`.weight and `name`.bias.
struct LinearPart {
  std::string name;
  int64_t outputs = 0;
};

// Reads tensors of one package, all under names that begin with a prefix. Errors are those of
// Weights::Get, and InvalidArgument for a value that is NaN or infinite.
class TensorReader {
 public:
  TensorReader(const Package& package, std::string prefix)
      : weights_(package.weights), prefix_(std::move(prefix)) {}

  bool Has(const std::string& name) const { return weights_.Find(prefix_ + name) != nullptr; }
  absl::StatusOr<TensorView> View(const std::string& name,
                                  std::initializer_list<int64_t> shape) const {
    return weights_.Get(prefix_ + name, {shape.begin(), shape.size()});
  }
  // A matrix [outputs, inputs] as `layout` stores it.
  absl::StatusOr<TensorView> Matrix(const std::string& name, int64_t outputs, int64_t inputs,
                                    MatrixLayout layout) const;

  absl::StatusOr<Embedding> Table(const std::string& name, int64_t rows, int64_t width) const;
  // `name`.weight and .bias, or .gamma and .beta of old checkpoints.
  absl::StatusOr<LayerNorm> Norm(const std::string& name, int64_t d, float epsilon) const;
  // `name`.weight.
  absl::StatusOr<RmsNorm> ScaleNorm(const std::string& name, int64_t d, float epsilon) const;
  // One Linear of all parts' outputs, those of the first part first.
  absl::StatusOr<Linear> LoadLinear(std::span<const LinearPart> parts, int64_t inputs,
                                    MatrixLayout layout, Bias bias) const;
  absl::StatusOr<Linear> LoadLinear(const LinearPart& part, int64_t inputs, MatrixLayout layout,
                                    Bias bias) const {
    return LoadLinear(std::span(&part, 1), inputs, layout, bias);
  }

 private:
  const Weights& weights_;
  std::string prefix_;
};

// Where a feed-forward layer's tensors are.
struct FfnSource {
  std::string in;   // "<in>.weight": d -> hidden, through the activation
  std::string up;   // of a gated layer: "<up>.weight", beside `in`, which is its gate; "" if none
  std::string out;  // hidden -> d
  MatrixLayout layout = MatrixLayout::kOutIn;
  Bias bias = Bias::kRequired;
  Activation activation = Activation::kGelu;
  int64_t d = 0;
  int64_t hidden = 0;
};

// A feed-forward layer with the experts and the router that dimmer.json gives layer `layer`, or
// dense. `module`: its index in CostModel::moe, where converted.
struct LoadedFfn {
  MoeLayer layer;
  std::optional<size_t> module;
};
absl::StatusOr<LoadedFfn> LoadFfn(const Package& package, const TensorReader& reader,
                                  const FfnSource& source, size_t layer);

// The head "lm_head" [vocab, d], which no prefix precedes, and the token embedding `words`; one
// matrix where `tied`.
absl::StatusOr<LmHead> LoadLmHead(const Package& package, const TensorReader& reader,
                                  const std::string& words, bool tied, int64_t vocab, int64_t d);

// Tokens that end a text: as generation_config.json says, or where there is none or it does not,
// `stated` by config.json. InvalidArgument names file and key.
absl::StatusOr<std::vector<int32_t>> EndIds(const Package& package, uint32_t vocab_size,
                                            std::vector<int32_t> stated);

// The format of a tensor, "F16"; "" if it is not there.
std::string StoredDType(const Package& package, const std::string& tensor);

// Tokens of a generation that does not say.
inline constexpr uint32_t kDefaultMaxTokens = 128;

// What dimmer.json says about modules against the model's sizes. InvalidArgument, Unimplemented.
absl::Status CheckModules(const Package& package, size_t layers, uint32_t hidden);

// Runs load(i) for every i < count on a few threads: blocks are independent of one another, and
// packing is most of a model's start. The first failure by number is returned.
absl::Status LoadBlocks(size_t count, absl::FunctionRef<absl::Status(size_t)> load);

// Adds the cost of feed-forward layer `ffn`: `neuron_flops` per hidden neuron and token.
void AddFfnCost(const Package& package, const LoadedFfn& ffn, uint64_t neuron_flops,
                uint64_t hidden, CostModel& cost);

// What dimmer.json adds to a model's description.
void DescribeConversion(const Package& package, ModelInfo& info);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODELS_LOADING_H_
