// GPT-2 with a tied head as a trainable libtorch graph, over packed sequences with causal
// attention. The loss is that of the next token.
#ifndef DIMMER_TRAINING_GPT2_TRAINEE_H_
#define DIMMER_TRAINING_GPT2_TRAINEE_H_

#include <torch/types.h>

#include <optional>
#include <string>
#include <vector>

#include "training/gpt2_shape.h"
#include "training/kernels.h"
#include "training/language_trainee.h"

namespace dimmer {

// FFNs are computed with ReLU, whatever config.json names.
class Gpt2Trainee : public LanguageTrainee {
 public:
  Gpt2Trainee(const Gpt2Shape& shape, WeightMap weights, const Sparsity& sparsity = {});

  std::vector<torch::Tensor> FfnInputs(const PackedBatch& batch,
                                       const HiddenFilter& filter) const override;

 protected:
  torch::Tensor Hidden(const PackedBatch& batch, std::optional<uint64_t> dropout_key,
                       TrainForward& result) const override;
  const torch::Tensor& head() const override { return words_; }

 private:
  struct Linear {
    torch::Tensor weight, bias;  // [in, out], [out]
  };
  struct Norm {
    torch::Tensor weight, bias;
  };
  struct Block {
    Norm attention_norm;
    Linear qkv, attention_out;
    Norm ffn_norm;
    Linear up, down;
  };
  // Where in the network a dropout mask is drawn; part of its key.
  enum class Site : uint64_t { kEmbedding = 1, kAttention, kAttentionOut, kFfnOut };

  Linear LinearAt(const std::string& prefix) const;
  Norm NormAt(const std::string& prefix) const;
  Dropout DropoutFor(std::optional<uint64_t> key, size_t layer, Site site) const;
  torch::Tensor Normalize(const torch::Tensor& x, const Norm& norm) const;
  torch::Tensor Embed(const PackedBatch& batch) const;
  // The block's residual stream after attention.
  torch::Tensor Attend(size_t layer, const torch::Tensor& x, const PackedBatch& batch,
                       std::optional<uint64_t> dropout_key) const;

  Gpt2Shape shape_;
  torch::Tensor words_, positions_;
  std::vector<Block> blocks_;
  Norm final_norm_;
};

}  // namespace dimmer

#endif  // DIMMER_TRAINING_GPT2_TRAINEE_H_
