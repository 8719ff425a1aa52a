#include <algorithm>

#include "engine/budget/cost_curve.h"
#include "engine/budget/generation_budget.h"
#include "engine/budget/tau_plan.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

absl::Status BelowFloor(uint64_t max_flops, uint64_t floor, const CostModel& cost,
                        const CostBounds& bounds, const GenerationSize& size) {
  const bool scoring = size.max_new_tokens == 0;
  return absl::FailedPreconditionError(fmt::format(
      "max_flops {} is below the floor of this call: {} FLOPs for {} of {} tokens{}{}", max_flops,
      floor, scoring ? "a text" : "a prompt", size.prompt_tokens, scoring ? "" : " and one new one",
      cost.moe.empty()      ? " (the model has no experts and always runs dense)"
      : bounds.only_dense() ? " (the operator's bounds on tau make the model run dense)"
                            : ""));
}

ComputePlan Steered(const TauSettings& settings) {
  ComputePlan plan;
  plan.kind = ComputePlan::Kind::kSteered;
  plan.min_tau = settings.min_tau;
  plan.max_tau = settings.max_tau;
  return plan;
}

}  // namespace

TokenSpan GenerationSize::All() const {
  const uint64_t last = prompt_tokens - std::min<uint64_t>(prompt_tokens, 1);
  if (max_new_tokens == 0) return {.first = 0, .tokens = last, .heads = last};
  return {.first = 0, .tokens = last + max_new_tokens, .heads = max_new_tokens};
}

TokenSpan GenerationSize::Least() const {
  if (max_new_tokens == 0) return All();
  return {.first = 0, .tokens = prompt_tokens, .heads = 1};
}

absl::StatusOr<ComputePlan> PlanGeneration(const Budget& budget, const TauSettings& settings,
                                           const CostModel& cost, const GenerationSize& size) {
  DIMMER_RETURN_IF_ERROR(ValidateBudget(budget));
  const CostBounds bounds(cost, settings.min_tau, settings.max_tau);
  const TokenSpan all = size.All();
  const ComputePlan brightest = PlanTau(0, settings, cost);
  switch (budget.kind) {
    case Budget::Kind::kDefault:
      return PlanDefault(settings, cost);
    case Budget::Kind::kTau:
      return PlanTau(budget.value, settings, cost);
    case Budget::Kind::kFlopFraction: {
      if (budget.value >= 1) return brightest;
      ComputePlan plan = bounds.only_dense() ? brightest : Steered(settings);
      plan.target_fraction = budget.value;
      plan.clamped = bounds.only_dense() || budget.value * double(cost.DenseFlops(all)) <
                                                double(bounds.FloorFlops(cost, all));
      return plan;
    }
    case Budget::Kind::kMaxFlops: {
      const uint64_t floor = bounds.FloorFlops(cost, size.Least());
      if (budget.max_flops < floor) {
        return BelowFloor(budget.max_flops, floor, cost, bounds, size);
      }
      if (budget.max_flops >= bounds.CeilingFlops(cost, all)) return brightest;
      ComputePlan plan = Steered(settings);
      plan.hard = true;
      plan.target_flops = budget.max_flops;
      return plan;
    }
    case Budget::Kind::kMinQuality:
      break;  // refused by ValidateBudget
  }
  return absl::InternalError("budget: a kind that ValidateBudget does not know");
}

absl::StatusOr<std::vector<ComputePlan>> PlanScoring(const Budget& budget,
                                                     const TauSettings& settings,
                                                     const CostModel& cost,
                                                     std::span<const uint32_t> tokens) {
  const CostBounds bounds(cost, settings.min_tau, settings.max_tau);
  uint64_t floor = 0, all = 0;
  for (const uint32_t count : tokens) {
    floor += bounds.FloorFlops(cost, GenerationSize{.prompt_tokens = count}.Least());
    all += count;
  }
  if (budget.kind == Budget::Kind::kMaxFlops && budget.max_flops > 0 && budget.max_flops < floor) {
    return absl::FailedPreconditionError(
        fmt::format("max_flops {} is below the floor of this call: {} FLOPs for {} text{} of {} "
                    "tokens",
                    budget.max_flops, floor, tokens.size(), tokens.size() == 1 ? "" : "s", all));
  }
  std::vector<ComputePlan> plans;
  plans.reserve(tokens.size());
  for (const uint32_t count : tokens) {
    const GenerationSize size{.prompt_tokens = count};
    Budget own = budget;
    if (budget.kind == Budget::Kind::kMaxFlops && budget.max_flops > 0) {
      const double share = double(count) / double(all);
      own.max_flops = bounds.FloorFlops(cost, size.Least()) +
                      static_cast<uint64_t>(share * double(budget.max_flops - floor));
      // One token needs no forward pass, but a limit of 0 is none.
      own.max_flops = std::max<uint64_t>(own.max_flops, 1);
    }
    DIMMER_ASSIGN_OR_RETURN(plans.emplace_back(), PlanGeneration(own, settings, cost, size));
  }
  return plans;
}

}  // namespace dimmer
