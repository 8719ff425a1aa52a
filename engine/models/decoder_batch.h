// One step of the sequences of a causal model: which of them run, on which of their tokens, what
// their budgets allow in every MoE module, and what becomes of the logits. Shared by the decoder
// families.
//
// A generation that decodes runs one token a step. Prompts (and texts to be scored) run in chunks
// that end at multiples of kPromptChunk; a step takes no more of them, oldest first, than
// StepContext::max_prompt_tokens, so that the streams which decode do not stall.
//
// Thread safety: not thread-safe; one per Forward call.
#ifndef DIMMER_ENGINE_MODELS_DECODER_BATCH_H_
#define DIMMER_ENGINE_MODELS_DECODER_BATCH_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/layers/causal_attention.h"
#include "engine/layers/lm_head.h"
#include "engine/layers/moe_layer.h"
#include "engine/models/model.h"

namespace dimmer {

class DecoderBatch {
 public:
  // Checks the sequences that are new (ids, length, task, plan, pages); those that fail are
  // finished with InvalidArgument. Prompts beyond the limit sit this step out. A generation whose
  // budget does not pay the next chunk is finished with kBudget.
  DecoderBatch(const ModelInfo& info, std::span<Sequence* const> sequences,
               const StepContext& context);

  bool empty() const { return running_.empty(); }
  size_t size() const { return running_.size(); }
  size_t tokens() const { return tokens_; }  // rows of all
  std::span<const CausalRows> rows() const { return rows_; }
  // The ids whose rows rows()[i] are.
  std::span<const int32_t> ids(size_t i) const;

  // Finishes sequences that were cancelled, are late or have failed, and moves the rows of the
  // others in `x` together.
  void DropStopped(float* x, size_t stride);

  // What each sequence may run in MoE module `module` of CostModel::moe; nullopt: a dense layer.
  void PlanModule(std::optional<size_t> module);
  std::span<MoeSequence> moe() { return moe_; }
  ModuleStats* stats(std::optional<size_t> module);
  // Books what ran.
  void AccountModule(std::optional<size_t> module);

  // The rows whose logits are wanted, ascending: the last of a prompt, each of a decoding sequence,
  // all of a text to be scored but its last.
  std::span<const uint32_t> head_rows() const { return head_rows_; }
  // `logits` [head_rows, stride]: picks or scores the next tokens, and moves every sequence on.
  // Those that have ended are finished, with their usage.
  void Advance(const float* logits, size_t stride, ThreadPool& pool);

 private:
  struct Running {
    Sequence* sequence;
    uint64_t first = 0;  // position of the chunk
    uint64_t count = 0;
    uint64_t heads = 0;
    absl::Status failure = {};
    bool out_of_budget = false;
    Sampled next = {};               // of a generation
    std::vector<float> scores = {};  // of a text to be scored
  };

  absl::Status Check(const Sequence& sequence) const;
  absl::Status Start(Sequence& sequence) const;
  void Take(Sequence& sequence, uint64_t count);
  void Layout();
  void Finish(Sequence& sequence) const;
  void ReadLogits(Running& running, const float* logits, size_t stride) const;
  bool AddToken(Sequence& sequence, const Sampled& next) const;

  const ModelInfo& info_;
  StepStats* stats_;
  std::vector<Running> running_;
  std::vector<CausalRows> rows_;
  std::vector<MoeSequence> moe_;
  std::vector<uint32_t> head_rows_;
  size_t tokens_ = 0;
};

// The end of a decoder's step: `norm` and `head` for the rows whose logits are wanted, and what
// follows from them. x [tokens, d], stride PaddedWidth(d).
template <typename Norm>
void FinishStep(DecoderBatch& batch, const float* x, const Norm& norm, const LmHead& head, size_t d,
                StepContext& context) {
  const std::span<const uint32_t> rows = batch.head_rows();
  const size_t stride = PaddedWidth(d);
  float* z = context.workspace.Floats(Workspace::kHead, rows.size() * stride);
  for (size_t r = 0; r < rows.size(); ++r) std::copy_n(x + rows[r] * stride, d, z + r * stride);
  norm.Apply(z, rows.size(), stride, z, context.pool);
  float* logits = context.workspace.Floats(Workspace::kLogits, rows.size() * head.logits_stride());
  if (!rows.empty()) head.Apply(z, rows.size(), logits, context.pool);
  batch.Advance(logits, head.logits_stride(), context.pool);
}

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODELS_DECODER_BATCH_H_
