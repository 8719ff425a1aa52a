// The sequences of one encoder step while they walk through the layers: which rows are whose, what
// each may run in the next MoE module, and what it has used so far. Shared by the encoder families.
//
// Thread safety: not thread-safe; one per Forward call.
#ifndef DIMMER_ENGINE_MODELS_RUNNING_BATCH_H_
#define DIMMER_ENGINE_MODELS_RUNNING_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/budget/budget.h"
#include "engine/layers/moe_layer.h"
#include "engine/layers/self_attention.h"
#include "engine/models/model.h"

namespace dimmer {

class RunningBatch {
 public:
  // Checks every sequence against the model (length, ids, type ids in [0, type_vocab_size), task,
  // plan); those that fail are finished with InvalidArgument and have no rows.
  RunningBatch(const ModelInfo& info, uint32_t type_vocab_size,
               std::span<Sequence* const> sequences, StepStats* stats);

  bool empty() const { return running_.empty(); }
  size_t size() const { return running_.size(); }
  size_t tokens() const { return tokens_; }  // rows of all
  std::span<const SequenceRows> rows() const { return rows_; }
  Sequence& sequence(size_t i) { return *running_[i].sequence; }
  const Sequence& sequence(size_t i) const { return *running_[i].sequence; }

  // Finishes sequences that were cancelled, are late or have failed, and moves the rows of the
  // others in `x` together.
  void DropStopped(float* x, size_t stride);

  // What each sequence may run in MoE module `module` of CostModel::moe; nullopt: a dense layer.
  void PlanModule(std::optional<size_t> module);
  std::span<MoeSequence> moe() { return moe_; }
  ModuleStats* stats(std::optional<size_t> module);
  // Books what ran. A hard budget that the operator's max_tau excludes fails its sequence.
  void AccountModule(std::optional<size_t> module);

  // The sequence has its answer: usage is filled in.
  void Finish(size_t i);

 private:
  struct Running {
    Sequence* sequence;
    std::unique_ptr<QuotaController> quota;  // kQuota plans
    std::vector<uint64_t> pairs;             // per module
    std::unique_ptr<bool[]> routed;          // per module
    double tau_sum = 0;
    bool bounded = false;
    absl::Status failure;
  };

  absl::Status Check(const Sequence& sequence, uint32_t type_vocab_size) const;
  void Layout();
  // Of one sequence: an embedding does not run the head.
  const CostModel& CostOf(const Sequence& sequence);

  const ModelInfo& info_;
  std::unique_ptr<const CostModel> headless_;  // made when the first embedding asks for it
  StepStats* stats_;
  std::vector<Running> running_;
  std::vector<SequenceRows> rows_;
  std::vector<MoeSequence> moe_;
  size_t tokens_ = 0;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODELS_RUNNING_BATCH_H_
