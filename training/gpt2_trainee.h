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
#include "training/trainee.h"

namespace dimmer {

// FFNs are computed with ReLU, whatever config.json names.
class Gpt2Trainee : public Trainee {
 public:
  Gpt2Trainee(const Gpt2Shape& shape, WeightMap weights);

  // Needs batch.next_ids. No sequence may be longer than the context.
  TrainForward Forward(const PackedBatch& batch,
                       std::optional<uint64_t> dropout_key) const override;
  std::vector<torch::Tensor> FfnInputs(const PackedBatch& batch) const override;

  // -ln p of batch.next_ids [tokens], without dropout and gradient.
  std::vector<float> TokenLosses(const PackedBatch& batch) const;

  // [tokens, vocab], without dropout and gradient.
  torch::Tensor Logits(const PackedBatch& batch) const;

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
  // The final norm's output [tokens, d]; fills active and hoyer of `result`.
  torch::Tensor Hidden(const PackedBatch& batch, std::optional<uint64_t> dropout_key,
                       TrainForward& result) const;

  Gpt2Shape shape_;
  torch::Tensor words_, positions_;
  std::vector<Block> blocks_;
  Norm final_norm_;
};

}  // namespace dimmer

#endif  // DIMMER_TRAINING_GPT2_TRAINEE_H_
