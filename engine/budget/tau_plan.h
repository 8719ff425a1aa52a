// Plans that fix tau, which calls of all kinds share. Internal to engine/budget.
#ifndef DIMMER_ENGINE_BUDGET_TAU_PLAN_H_
#define DIMMER_ENGINE_BUDGET_TAU_PLAN_H_

#include "engine/budget/budget.h"

namespace dimmer {

// One tau for all modules, moved into the operator's bounds.
ComputePlan PlanTau(double tau, const TauSettings& settings, const CostModel& cost);

// The operator's default tau, or a module's own where one is set.
ComputePlan PlanDefault(const TauSettings& settings, const CostModel& cost);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_BUDGET_TAU_PLAN_H_
