// BERT with a classification head as a trainable libtorch graph, over packed sequences.
//
// Thread safety: Forward is const and may run on several threads at once; nothing may change the
// parameters meanwhile.
#ifndef DIMMER_TRAINING_BERT_TRAINEE_H_
#define DIMMER_TRAINING_BERT_TRAINEE_H_

#include <torch/types.h>

#include <optional>
#include <string>
#include <vector>

#include "training/bert_shape.h"
#include "training/kernels.h"
#include "training/trainee.h"

namespace dimmer {

// The embeddings are frozen: AdamW on their rows would cost more than the layers.
class BertTrainee : public Trainee {
 public:
  BertTrainee(const BertShape& shape, WeightMap weights, const Sparsity& sparsity = {});

  TrainForward Forward(const PackedBatch& batch,
                       std::optional<uint64_t> dropout_key) const override;
  std::vector<torch::Tensor> FfnInputs(const PackedBatch& batch,
                                       const HiddenFilter& filter) const override;

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
  Linear LinearAt(const std::string& prefix) const;
  Norm NormAt(const std::string& prefix) const;
  torch::Tensor Normalize(const torch::Tensor& x, const Norm& norm) const;
  torch::Tensor Embed(const PackedBatch& batch) const;
  torch::Tensor Attend(const Block& block, const torch::Tensor& x, const PackedBatch& batch,
                       const AttentionKeys& keys) const;

  BertShape shape_;
  torch::Tensor words_, positions_, types_;
  Norm embedding_norm_;
  std::vector<Block> blocks_;
  Linear pooler_, classifier_;
};

}  // namespace dimmer

#endif  // DIMMER_TRAINING_BERT_TRAINEE_H_
