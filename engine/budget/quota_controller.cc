#include <algorithm>
#include <cmath>
#include <cstddef>

#include "engine/budget/budget.h"

namespace dimmer {
namespace {

// Halvings of the interval of the scale below: to a thousandth of a pair for any realistic size.
constexpr int kBisections = 48;

double ExpertsPerToken(const MoeCost& module, double weight, double scale) {
  const double experts = module.experts;
  return std::min(std::max(scale * weight, 1.0), experts);
}

}  // namespace

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

  // One scale for all modules to come, so that scale x weight experts per token, kept within
  // [1, experts], cost what remains.
  const auto cost_at = [&](double scale) {
    double flops = 0;
    for (size_t i = index; i < moe.size(); ++i) {
      flops += ExpertsPerToken(moe[i], weight[i], scale) * double(moe[i].pair_flops);
    }
    return flops;
  };
  double low = 0, high = 1;
  for (size_t i = index; i < moe.size(); ++i) high = std::max(high, moe[i].experts / weight[i]);
  for (int i = 0; i < kBisections; ++i) {
    const double middle = (low + high) / 2;
    if (cost_at(middle) <= per_token) {
      low = middle;
    } else {
      high = middle;
    }
  }

  const auto pair_flops = static_cast<int64_t>(moe[index].pair_flops);
  const int64_t floor = tokens_;
  int64_t pairs = std::llround(ExpertsPerToken(moe[index], weight[index], high) * tokens_);
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
