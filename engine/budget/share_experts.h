// How the experts' FLOPs of a token are shared out among modules. Internal to engine/budget.
#ifndef DIMMER_ENGINE_BUDGET_SHARE_EXPERTS_H_
#define DIMMER_ENGINE_BUDGET_SHARE_EXPERTS_H_

#include <span>

#include "engine/budget/cost_model.h"

namespace dimmer {

// Experts per token of the first of `modules` (at least one), where all of them together may spend
// `flops_per_token` on experts: one scale for all, so that scale x weight experts, kept within
// [1, experts], cost that. `weight` has one positive number per module.
double ShareExperts(std::span<const MoeCost> modules, std::span<const double> weight,
                    double flops_per_token);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_BUDGET_SHARE_EXPERTS_H_
