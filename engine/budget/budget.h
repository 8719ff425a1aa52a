// From what a caller asks for and what the operator allows to what the gates enforce.
#ifndef DIMMER_ENGINE_BUDGET_BUDGET_H_
#define DIMMER_ENGINE_BUDGET_BUDGET_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "engine/budget/calibration.h"
#include "engine/budget/cost_model.h"

namespace dimmer {

// A caller's budget, as in the API.
struct Budget {
  enum class Kind : uint8_t { kDefault, kTau, kFlopFraction, kMaxFlops, kMinQuality };
  Kind kind = Kind::kDefault;
  double value = 0;        // kTau, kFlopFraction, kMinQuality
  uint64_t max_flops = 0;  // kMaxFlops: for the whole call
};

// InvalidArgument: not finite, tau outside [0, 1], flop_fraction outside (0, 1], max_flops 0.
// Unimplemented: min_quality.
absl::Status ValidateBudget(const Budget& budget);

// The operator's settings in force for a model.
struct TauSettings {
  double default_tau = 0;
  double min_tau = 0;
  double max_tau = 1;
  // Per MoE module, replaces default_tau there (negative: not set); empty: none set. A budget in
  // the request replaces both.
  std::vector<double> layer_tau;
  uint64_t revision = 1;
};

// What the gates do for one sequence.
struct ComputePlan {
  enum class Kind : uint8_t {
    kTau,      // expert n runs iff score >= tau * max
    kQuota,    // a number of (token, expert) pairs per module; tau follows from the scores
    kSteered,  // a generation's: GenerationBudget moves tau from chunk to chunk
  };
  Kind kind = Kind::kTau;
  std::vector<double> module_tau;  // kTau: one per MoE module; all 0 is the dense path
  uint64_t target_flops = 0;       // kQuota, and kSteered if hard: for this sequence
  double target_fraction = 1;      // kSteered, unless hard: of the dense FLOPs
  bool hard = false;               // never exceed target_flops (max_flops)
  double min_tau = 0;              // kQuota, kSteered: the operator's bounds on the resulting tau
  double max_tau = 1;
  std::vector<double> module_weight;  // kQuota: expected experts run per token and module
  bool clamped = false;               // valid, but moved into the bounds or to the floor

  bool dense() const;  // no module needs its router
};

// Plans for the sequences of one call, of `tokens[i]` tokens each. flop_fraction holds for each
// sequence; max_flops is shared out by tokens and leaves nobody below the floor.
// FailedPrecondition: max_flops is under the floor, which the message names. A model without MoE
// modules always runs dense: a budget below that is clamped (max_flops: FailedPrecondition).
absl::StatusOr<std::vector<ComputePlan>> PlanCall(const Budget& budget, const TauSettings& settings,
                                                  const CostModel& cost,
                                                  const Calibration& calibration,
                                                  std::span<const uint32_t> tokens);

// Deals out the expert pairs of a kQuota plan, module after module, as one sequence walks forward.
// What a module leaves unused or overdraws goes to, or comes from, the later ones. State of one
// sequence; not thread-safe.
class QuotaController {
 public:
  QuotaController(const ComputePlan& plan, const CostModel& cost, uint32_t tokens);

  // Pairs that MoE module `index` may run, in [tokens, tokens * experts]. A soft quota is a target;
  // under `hard` it keeps every later module's floor in reserve.
  uint64_t PairsFor(size_t index) const;
  // Module `index` ran `pairs`; if it might run all (and min_tau is 0), without its router.
  void Spend(size_t index, uint64_t pairs);

 private:
  const ComputePlan* plan_;
  const CostModel* cost_;
  uint32_t tokens_;
  int64_t remaining_flops_;  // for the experts of the modules still to come
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_BUDGET_BUDGET_H_
