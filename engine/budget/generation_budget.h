// The budget of one generation (or scoring) while it runs: what tau its next chunk gets, how much
// that chunk may run at most, and what it has used so far, to the FLOP.
//
// A fixed tau holds for every token. A flop_fraction is steered: the FLOPs run so far, prompt
// included, are compared with the share asked of the dense FLOPs of the same tokens, and the next
// token's tau comes from the calibration's C(tau), inverted, for what then is due. How far the
// calibration is off is learned on the way. The tokens of a prompt's chunk are all present: they
// get a number of (token, expert) pairs, and tau follows from their scores. max_flops is steered in
// the same way towards the share that the whole call can afford, and beyond that every chunk has a
// hard cap that keeps the rest of the prompt payable.
//
// Deterministic: the answers depend on the plan, the model and what was spent, not on when chunks
// run or what runs beside them.
//
// Thread safety: none; state of one sequence.
#ifndef DIMMER_ENGINE_BUDGET_GENERATION_BUDGET_H_
#define DIMMER_ENGINE_BUDGET_GENERATION_BUDGET_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "engine/budget/budget.h"
#include "engine/budget/calibration.h"
#include "engine/budget/cost_curve.h"
#include "engine/budget/cost_model.h"
#include "engine/budget/usage.h"

namespace dimmer {

// What a call asks of a causal model. Its forward passes compute these positions:
// generation: [0, prompt_tokens + max_new_tokens - 1), the head runs from the prompt's last on;
// scoring: [0, prompt_tokens - 1), each with its head (the last token is only predicted).
struct GenerationSize {
  uint64_t prompt_tokens = 0;   // at least 1
  uint64_t max_new_tokens = 0;  // 0: scoring

  TokenSpan All() const;    // all positions above
  TokenSpan Least() const;  // the prompt and, of a generation, one head: without it, no answer
};

// FailedPrecondition: max_flops does not pay even the prompt and one token at the floor, which the
// message names. A model without experts always runs dense.
absl::StatusOr<ComputePlan> PlanGeneration(const Budget& budget, const TauSettings& settings,
                                           const CostModel& cost, const GenerationSize& size);

// Plans for scoring the texts of one call, of `tokens[i]` tokens each: flop_fraction holds for each
// text; what max_flops leaves above the floors is shared out by tokens. Errors as above.
absl::StatusOr<std::vector<ComputePlan>> PlanScoring(const Budget& budget,
                                                     const TauSettings& settings,
                                                     const CostModel& cost,
                                                     std::span<const uint32_t> tokens);

class GenerationBudget {
 public:
  static constexpr uint64_t kNoCap = std::numeric_limits<uint64_t>::max();

  // `plan` is copied; `cost` and `calibration` are the model's and must outlive this.
  GenerationBudget(const ComputePlan& plan, const CostModel& cost, const Calibration& calibration,
                   const GenerationSize& size);

  // The next chunk. False: max_flops does not pay even its floor; the chunk must not run and the
  // generation ends with kBudget.
  bool Begin(const TokenSpan& chunk);
  // What MoE module `module` of the chunk may run; to be asked in ascending order, each followed by
  // Spend(). max_pairs kNoCap: what tau says (0: the dense path, without the router). Otherwise
  // QuotaGate{.pairs = max_pairs(m), .min_tau = tau(m), .max_tau = max_tau(), .hard = hard()}.
  double tau(size_t module) const;
  uint64_t max_pairs(size_t module) const;
  double max_tau() const { return plan_.kind == ComputePlan::Kind::kSteered ? plan_.max_tau : 1; }
  bool hard() const { return plan_.hard; }
  void Spend(size_t module, uint64_t pairs, bool routed, double effective_tau);
  // Books the chunk.
  void End();

  // In place of Spend(), under hard(): the operator's max_tau demands `needed` pairs, more than the
  // cap, and the gate ran none. The chunk ends here, books what it may have run, and the generation
  // cannot go on: with kBudget if it has a token to show, else with this FailedPrecondition.
  absl::Status GiveUp(size_t module, uint64_t needed);

  // Fills in flops, dense_flops, tau, layers and budget_clamped.
  void Report(Usage& usage) const;

  uint64_t flops() const { return flops_; }
  uint64_t dense_flops() const { return dense_flops_; }

 private:
  // Of the part that is still to come once `chunk` has run: what an answer needs.
  uint64_t ReserveAfter(const TokenSpan& chunk) const;
  double WantedFlops(const TokenSpan& chunk) const;
  void Steer(const TokenSpan& chunk);
  uint64_t Cap(size_t module) const;
  void Book(const TokenSpan& ran);

  const CostModel* cost_;
  ComputePlan plan_;
  GenerationSize size_;
  CostBounds bounds_;
  CostCurve curve_;

  std::vector<MoeCost> gated_;  // the modules that are not always dense
  std::vector<size_t> place_;   // [modules] how many of gated_ come before

  // Of the chunk that runs.
  TokenSpan chunk_;
  double tau_ = 0;              // kSteered: of gated_
  std::vector<double> weight_;  // of gated_, where the chunk has a quota of pairs; else empty
  double due_ = 0;              // quota: FLOPs for the experts of gated_ still to come
  uint64_t available_ = 0;      // hard: for the modules still to come
  bool capped_ = false;         // the cap decided
  uint64_t moe_flops_ = 0;      // experts and routers
  uint64_t gated_flops_ = 0;    // experts of gated_
  double chunk_tau_ = 0;        // mean over the modules so far
  double gated_tau_ = 0;        // sum over gated_ so far

  // So far.
  uint64_t flops_ = 0;
  uint64_t dense_flops_ = 0;
  uint64_t tokens_ = 0;
  uint64_t heads_ = 0;
  double mean_tau_ = 0;   // over tokens and modules
  bool bounded_ = false;  // a wanted tau lay outside the bounds
  std::vector<uint64_t> pairs_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_BUDGET_GENERATION_BUDGET_H_
