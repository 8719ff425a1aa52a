#include "engine/budget/share_experts.h"

#include <algorithm>
#include <cstddef>

namespace dimmer {
namespace {

// Halvings of the interval of the scale below: to a thousandth of a pair for any realistic size.
constexpr int kBisections = 48;

double ExpertsPerToken(const MoeCost& module, double weight, double scale) {
  const double experts = module.experts;
  return std::min(std::max(scale * weight, 1.0), experts);
}

}  // namespace

double ShareExperts(std::span<const MoeCost> modules, std::span<const double> weight,
                    double flops_per_token) {
  const auto cost_at = [&](double scale) {
    double flops = 0;
    for (size_t i = 0; i < modules.size(); ++i) {
      flops += ExpertsPerToken(modules[i], weight[i], scale) * double(modules[i].pair_flops);
    }
    return flops;
  };
  double low = 0, high = 1;
  for (size_t i = 0; i < modules.size(); ++i) {
    high = std::max(high, modules[i].experts / weight[i]);
  }
  for (int i = 0; i < kBisections; ++i) {
    const double middle = (low + high) / 2;
    if (cost_at(middle) <= flops_per_token) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return ExpertsPerToken(modules[0], weight[0], high);
}

}  // namespace dimmer
