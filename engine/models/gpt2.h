// GPT-2 (Radford et al. 2019): GPT2LMHeadModel. Feed-forward layers may be converted into experts.
//
// Thread safety: immutable after Load; Forward may run on several threads, each with its own
// StepContext and sequences.
#ifndef DIMMER_ENGINE_MODELS_GPT2_H_
#define DIMMER_ENGINE_MODELS_GPT2_H_

#include <absl/status/statusor.h>

#include <memory>
#include <span>
#include <vector>

#include "engine/layers/causal_attention.h"
#include "engine/layers/embedding.h"
#include "engine/layers/layer_norm.h"
#include "engine/layers/lm_head.h"
#include "engine/models/decoder_batch.h"
#include "engine/models/gpt2_config.h"
#include "engine/models/loading.h"
#include "engine/models/model.h"

namespace dimmer {

struct Gpt2Block {
  LayerNorm attention_norm;
  CausalAttention attention;
  LayerNorm ffn_norm;
  LoadedFfn ffn;
};

struct Gpt2Weights {
  Gpt2Config config;
  LmHead head;
  Embedding positions;
  std::vector<Gpt2Block> blocks;
  LayerNorm final_norm;
};

class Gpt2 : public Model {
 public:
  // Linear layers may be stored [in, out], as `transformers` does, or [out, in]; missing biases are
  // zero. InvalidArgument or NotFound names file, tensor, what was found and what was expected.
  static absl::StatusOr<std::unique_ptr<Model>> Load(const Package& package);

  const ModelInfo& info() const override { return info_; }

  // Sequence::status: InvalidArgument (no tokens, too many, ids outside the vocabulary, a task that
  // is not generation or scoring), Cancelled, DeadlineExceeded, Internal (logits that are NaN), or
  // FailedPrecondition where the operator's max_tau and a hard budget exclude each other.
  void Forward(std::span<Sequence* const> batch, StepContext& context) const override;

 private:
  Gpt2(Gpt2Weights weights, ModelInfo info);

  void Embed(const DecoderBatch& batch, float* x) const;

  Gpt2Weights weights_;
  ModelInfo info_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODELS_GPT2_H_
