// BERT with a classification head as a trainable libtorch graph, over packed sequences.
//
// Thread safety: Forward is const and may run on several threads at once; nothing may change the
// parameters meanwhile.
#ifndef DIMMER_TRAINING_BERT_TRAINEE_H_
#define DIMMER_TRAINING_BERT_TRAINEE_H_

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "training/batch.h"
#include "training/bert_shape.h"
#include "training/kernels.h"

namespace dimmer {

// One tensor under its Hugging Face name, e.g. "bert.encoder.layer.0.output.dense.weight".
struct Parameter {
  std::string name;
  torch::Tensor value;
  bool trained = true;  // false: the frozen embeddings
  bool decayed = true;  // weight decay: matrices only, not biases or LayerNorm
};

// What the backward pass and the log need from one forward pass.
struct TrainForward {
  torch::Tensor logits;         // [sequences, classes]
  torch::Tensor hoyer;          // scalar: sum of h over this batch's tokens and all layers
  std::vector<int64_t> active;  // per layer: non-zero activations
};

class BertTrainee {
 public:
  // `weights` by Hugging Face name, of the shapes that `shape` implies (bert_shape.h).
  BertTrainee(const BertShape& shape, std::map<std::string, std::vector<float>> weights);

  const BertShape& shape() const { return shape_; }
  std::vector<Parameter>& parameters() { return parameters_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }

  // With `dropout_key` set, dropout draws its masks under that key; without, there is none.
  TrainForward Forward(const PackedBatch& batch, std::optional<uint64_t> dropout_key) const;

  // Dense inputs of every FFN: [layers] tensors [tokens, d]. No gradient is recorded.
  std::vector<torch::Tensor> FfnInputs(const PackedBatch& batch) const;

 private:
  struct Linear {
    torch::Tensor weight, bias;
  };
  struct Norm {
    torch::Tensor weight, bias;
  };
  struct Block {
    Linear query, key, value, attention_out, up, down;
    Norm attention_norm, ffn_norm;
  };
  struct AttentionKeys {
    Dropout probabilities, out;
  };
  const torch::Tensor& At(const std::string& name) const;
  Linear LinearAt(const std::string& prefix) const;
  Norm NormAt(const std::string& prefix) const;
  torch::Tensor Normalize(const torch::Tensor& x, const Norm& norm) const;
  torch::Tensor Embed(const PackedBatch& batch) const;
  torch::Tensor Attend(const Block& block, const torch::Tensor& x, const PackedBatch& batch,
                       const AttentionKeys& keys) const;

  BertShape shape_;
  std::vector<Parameter> parameters_;
  std::map<std::string, size_t> index_;
  torch::Tensor words_, positions_, types_;
  Norm embedding_norm_;
  std::vector<Block> blocks_;
  Linear pooler_, classifier_;
};

}  // namespace dimmer

#endif  // DIMMER_TRAINING_BERT_TRAINEE_H_
