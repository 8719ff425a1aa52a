#include "server/ctl/usage_view.h"

namespace dimmer::ctl {

std::string ShareOfDense(uint64_t flops, uint64_t dense_flops) {
  return dense_flops == 0 ? "-" : Percent(double(flops) / double(dense_flops), 0);
}

std::vector<Line> RenderNotes(const v1::Usage& usage) {
  std::vector<Line> lines;
  if (usage.budget_clamped()) {
    lines.push_back(
        {{"the budget was moved to the operator's bounds or the model's floor", kLight}});
  }
  if (usage.degraded()) {
    lines.push_back({{"the server has turned the light down: load", kLight}});
  }
  if (usage.truncated()) lines.push_back({{"a text was cut to the model's length", kLight}});
  return lines;
}

}  // namespace dimmer::ctl
