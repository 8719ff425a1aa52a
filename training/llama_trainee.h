// Llama as a trainable libtorch graph: RMSNorm, rotary positions, grouped-query attention, gated
// FFNs. Over packed sequences with causal attention; the loss is that of the next token.
#ifndef DIMMER_TRAINING_LLAMA_TRAINEE_H_
#define DIMMER_TRAINING_LLAMA_TRAINEE_H_

#include <torch/types.h>

#include <string>
#include <vector>

#include "training/language_trainee.h"
#include "training/llama_shape.h"

namespace dimmer {

// The gate is what the penalty is on.
class LlamaTrainee : public LanguageTrainee {
 public:
  LlamaTrainee(const LlamaShape& shape, WeightMap weights, const Sparsity& sparsity = {});

  std::vector<torch::Tensor> FfnInputs(const PackedBatch& batch,
                                       const HiddenFilter& filter) const override;

 protected:
  torch::Tensor Hidden(const PackedBatch& batch, std::optional<uint64_t> dropout_key,
                       TrainForward& result) const override;
  const torch::Tensor& head() const override { return head_; }

 private:
  struct Block {
    torch::Tensor attention_norm, query, key, value, attention_out;  // matrices [out, in]
    torch::Tensor ffn_norm, gate, up, down;
  };
  // Angles of every token's position: cosines and sines [tokens, 1, head_dim].
  struct Rotation {
    torch::Tensor cosines, sines;
  };
  Rotation RotationOf(const PackedBatch& batch) const;
  torch::Tensor Normalize(const torch::Tensor& x, const torch::Tensor& weight) const;
  // The block's residual stream after attention.
  torch::Tensor Attend(const Block& block, const torch::Tensor& x, const PackedBatch& batch,
                       const Rotation& rotation) const;

  LlamaShape shape_;
  torch::Tensor words_, head_, final_norm_;
  std::vector<Block> blocks_;
};

}  // namespace dimmer

#endif  // DIMMER_TRAINING_LLAMA_TRAINEE_H_
