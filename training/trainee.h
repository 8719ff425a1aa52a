// A model as the training stages see it: named parameters, and one pass over a packed batch that
// gives the task's loss, the penalty on activations and how much of each FFN was active. The stages
// know no family; a family is a Trainee, its sizes and its layout (training/model_shape.h).
//
// Thread safety: the const methods may run on several threads at once; nothing may change the
// parameters meanwhile.
#ifndef DIMMER_TRAINING_TRAINEE_H_
#define DIMMER_TRAINING_TRAINEE_H_

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "training/batch.h"
#include "training/layout.h"
#include "training/model_shape.h"
#include "training/sparsity.h"

namespace dimmer {

// One tensor under its name in the checkpoint, stored as there.
struct Parameter {
  std::string name;
  torch::Tensor value;
  bool trained = true;  // false: frozen embeddings
  bool decayed = true;  // weight decay: matrices only, not biases or norms
};

// What the backward pass and the log need from one forward pass.
struct TrainForward {
  torch::Tensor loss;           // scalar: cross-entropy in nats, summed over the batch's targets
  torch::Tensor penalty;        // scalar: sum over this batch's tokens and all layers
  std::vector<int64_t> active;  // per layer: active neurons of all tokens
  torch::Tensor logits;         // classifiers: [sequences, classes]; language models: none
};

// What of an FFN's hidden values [tokens, d_ff] goes on, given its layer and input [tokens, d].
using HiddenFilter = std::function<torch::Tensor(int64_t layer, const torch::Tensor& input,
                                                 const torch::Tensor& hidden)>;

class Trainee {
 public:
  virtual ~Trainee() = default;

  const ModelLayout& layout() const { return layout_; }
  const Sparsity& sparsity() const { return sparsity_; }
  std::vector<Parameter>& parameters() { return parameters_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  // The parameter of this name, which must exist.
  const torch::Tensor& At(const std::string& name) const;

  // With `dropout_key` set, dropout draws its masks under that key; without, there is none.
  virtual TrainForward Forward(const PackedBatch& batch,
                               std::optional<uint64_t> dropout_key) const = 0;

  // Inputs of every FFN: [layers] tensors [tokens, d]. `filter` may be empty: the dense model's. No
  // gradient is recorded.
  virtual std::vector<torch::Tensor> FfnInputs(const PackedBatch& batch,
                                               const HiddenFilter& filter) const = 0;

 protected:
  // `weights` by name, of the shapes that `layout` states. Every tensor is trained; those of more
  // than one dimension are decayed.
  Trainee(ModelLayout layout, WeightMap weights, const Sparsity& sparsity);
  void Freeze(const std::string& prefix);
  // Of the layer whose input is the last of `inputs`.
  static torch::Tensor Filtered(const HiddenFilter& filter,
                                const std::vector<torch::Tensor>& inputs,
                                const torch::Tensor& hidden) {
    if (!filter) return hidden;
    return filter(static_cast<int64_t>(inputs.size()) - 1, inputs.back(), hidden);
  }

 private:
  ModelLayout layout_;
  Sparsity sparsity_;
  std::vector<Parameter> parameters_;
  std::map<std::string, size_t> index_;
};

std::unique_ptr<Trainee> MakeTrainee(const ModelShape& shape, WeightMap weights,
                                     const Sparsity& sparsity = {});

// The parameters' values, by name.
WeightMap WeightsOf(const Trainee& model);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_TRAINEE_H_
