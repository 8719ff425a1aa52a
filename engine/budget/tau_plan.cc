#include "engine/budget/tau_plan.h"

#include <algorithm>
#include <cstddef>

namespace dimmer {
namespace {

double Bounded(double tau, const TauSettings& settings) {
  return std::min(std::max(tau, settings.min_tau), settings.max_tau);
}

}  // namespace

ComputePlan PlanTau(double tau, const TauSettings& settings, const CostModel& cost) {
  ComputePlan plan;
  const double bounded = Bounded(tau, settings);
  plan.module_tau.assign(cost.moe.size(), bounded);
  plan.clamped = cost.moe.empty() ? tau > 0 : bounded != tau;
  return plan;
}

ComputePlan PlanDefault(const TauSettings& settings, const CostModel& cost) {
  ComputePlan plan;
  plan.module_tau.assign(cost.moe.size(), Bounded(settings.default_tau, settings));
  const size_t set = std::min(plan.module_tau.size(), settings.layer_tau.size());
  for (size_t i = 0; i < set; ++i) {
    if (settings.layer_tau[i] >= 0) plan.module_tau[i] = Bounded(settings.layer_tau[i], settings);
  }
  return plan;
}

}  // namespace dimmer
