// BERT encoders (Devlin et al. 2018): BertModel, which embeds, and BertForSequenceClassification,
// which also classifies. Feed-forward layers may be converted into experts.
//
// Thread safety: immutable after Load; Forward may run on several threads, each with its own
// StepContext.
#ifndef DIMMER_ENGINE_MODELS_BERT_H_
#define DIMMER_ENGINE_MODELS_BERT_H_

#include <absl/status/statusor.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/layers/embedding.h"
#include "engine/layers/layer_norm.h"
#include "engine/layers/linear.h"
#include "engine/layers/self_attention.h"
#include "engine/models/bert_config.h"
#include "engine/models/loading.h"
#include "engine/models/model.h"
#include "engine/models/running_batch.h"

namespace dimmer {

struct BertBlock {
  SelfAttention attention;
  LayerNorm attention_norm;
  LoadedFfn ffn;
  LayerNorm ffn_norm;
};

// The head of BertForSequenceClassification: classifier(tanh(pooler(first token))).
struct BertClassifier {
  Linear pooler;
  Linear classifier;
};

struct BertWeights {
  BertConfig config;
  Embedding words;
  Embedding positions;
  Embedding types;
  LayerNorm embedding_norm;
  std::vector<BertBlock> blocks;
  std::optional<BertClassifier> head;
};

// Reads and packs all weights. InvalidArgument or NotFound names file, tensor, what was found and
// what was expected.
absl::StatusOr<BertWeights> LoadBertWeights(const Package& package);

class Bert : public Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Load(const Package& package);

  const ModelInfo& info() const override { return info_; }

  // Sequence::status: InvalidArgument (no tokens, too many, ids outside the vocabulary, a task that
  // the model has no head for), Cancelled, DeadlineExceeded, or FailedPrecondition where the
  // operator's max_tau and a hard budget exclude each other.
  void Forward(std::span<Sequence* const> batch, StepContext& context) const override;

 private:
  Bert(BertWeights weights, ModelInfo info);

  void Embed(const RunningBatch& batch, float* x, StepContext& context) const;
  void RunHeads(RunningBatch& batch, const float* x, StepContext& context) const;

  BertWeights weights_;
  ModelInfo info_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODELS_BERT_H_
