// Llama (Touvron et al. 2023): LlamaForCausalLM, with grouped-query attention. Gated feed-forward
// layers may be converted into experts, split by gate rows.
//
// Thread safety: immutable after Load; Forward may run on several threads, each with its own
// StepContext and sequences.
#ifndef DIMMER_ENGINE_MODELS_LLAMA_H_
#define DIMMER_ENGINE_MODELS_LLAMA_H_

#include <absl/status/statusor.h>

#include <memory>
#include <span>
#include <vector>

#include "engine/layers/causal_attention.h"
#include "engine/layers/layer_norm.h"
#include "engine/layers/lm_head.h"
#include "engine/models/decoder_batch.h"
#include "engine/models/llama_config.h"
#include "engine/models/loading.h"
#include "engine/models/model.h"

namespace dimmer {

struct LlamaBlock {
  RmsNorm attention_norm;
  CausalAttention attention;
  RmsNorm ffn_norm;
  LoadedFfn ffn;
};

struct LlamaWeights {
  LlamaConfig config;
  LmHead head;
  std::vector<LlamaBlock> blocks;
  RmsNorm final_norm;
};

class Llama : public Model {
 public:
  // InvalidArgument or NotFound names file, tensor, what was found and what was expected.
  static absl::StatusOr<std::unique_ptr<Model>> Load(const Package& package);

  const ModelInfo& info() const override { return info_; }

  // Sequence::status: as Gpt2::Forward.
  void Forward(std::span<Sequence* const> batch, StepContext& context) const override;

 private:
  Llama(LlamaWeights weights, ModelInfo info);

  void Embed(const DecoderBatch& batch, float* x) const;

  LlamaWeights weights_;
  ModelInfo info_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODELS_LLAMA_H_
