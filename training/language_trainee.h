// What trainable language models share: the loss of the next token through the head.
#ifndef DIMMER_TRAINING_LANGUAGE_TRAINEE_H_
#define DIMMER_TRAINING_LANGUAGE_TRAINEE_H_

#include <torch/types.h>

#include <optional>
#include <utility>
#include <vector>

#include "training/trainee.h"

namespace dimmer {

class LanguageTrainee : public Trainee {
 public:
  // Needs batch.next_ids. No sequence may be longer than the context.
  TrainForward Forward(const PackedBatch& batch,
                       std::optional<uint64_t> dropout_key) const override;

  // -ln p of batch.next_ids [tokens], without dropout and gradient.
  std::vector<float> TokenLosses(const PackedBatch& batch) const;
  // [tokens, vocab], without dropout and gradient.
  torch::Tensor Logits(const PackedBatch& batch) const;

 protected:
  LanguageTrainee(ModelLayout layout, WeightMap weights, const Sparsity& sparsity)
      : Trainee(std::move(layout), std::move(weights), sparsity) {}

  // The final norm's output [tokens, d]; fills active and penalty of `result`.
  virtual torch::Tensor Hidden(const PackedBatch& batch, std::optional<uint64_t> dropout_key,
                               TrainForward& result) const = 0;
  virtual const torch::Tensor& head() const = 0;  // [vocab, d]
};

}  // namespace dimmer

#endif  // DIMMER_TRAINING_LANGUAGE_TRAINEE_H_
