#include <algorithm>
#include <cmath>
#include <cstddef>

#include "engine/budget/budget.h"
#include "engine/budget/share_experts.h"

namespace dimmer {
QuotaController::QuotaController(const ComputePlan& plan, const CostModel& cost, uint32_t tokens)
    : plan_(&plan), cost_(&cost), tokens_(tokens) {
  uint64_t spent = cost.FixedFlops(tokens);
  for (const MoeCost& module : cost.moe) spent += tokens * module.router_flops;
  remaining_flops_ = static_cast<int64_t>(plan.target_flops) - static_cast<int64_t>(spent);
}

uint64_t QuotaController::PairsFor(size_t index) const {
  const std::vector<MoeCost>& moe = cost_->moe;
  const std::vector<double>& weight = plan_->module_weight;
  const double per_token = double(remaining_flops_) / std::max<uint32_t>(tokens_, 1);

  const double experts =
      ShareExperts(std::span(moe).subspan(index), std::span(weight).subspan(index), per_token);
  const auto pair_flops = static_cast<int64_t>(moe[index].pair_flops);
  const int64_t floor = tokens_;
  int64_t pairs = std::llround(experts * tokens_);
  if (plan_->hard) {
    int64_t reserve = 0;
    for (size_t i = index + 1; i < moe.size(); ++i) {
      reserve += floor * static_cast<int64_t>(moe[i].pair_flops);
    }
    pairs = std::min(pairs, (remaining_flops_ - reserve) / pair_flops);
  }
  return static_cast<uint64_t>(
      std::clamp(pairs, floor, floor * static_cast<int64_t>(moe[index].experts)));
}

void QuotaController::Spend(size_t index, uint64_t pairs) {
  const MoeCost& module = cost_->moe[index];
  // A choice of all is none: the router did not run, and its share goes to the later modules.
  const uint64_t all = uint64_t{tokens_} * module.experts;
  if (pairs == all && plan_->min_tau == 0 && PairsFor(index) == all) {
    remaining_flops_ += static_cast<int64_t>(tokens_ * module.router_flops);
  }
  remaining_flops_ -= static_cast<int64_t>(pairs * module.pair_flops);
}

}  // namespace dimmer
