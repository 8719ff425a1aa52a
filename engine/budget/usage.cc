#include "engine/budget/usage.h"

#include <algorithm>
#include <tuple>

namespace dimmer {
namespace {

// Merges `other`, ascending in (layer, module) as `layers` is, adding up what both have.
void MergeLayers(const std::vector<LayerUsage>& other, std::vector<LayerUsage>& layers) {
  const auto key = [](const LayerUsage& usage) { return std::tuple(usage.layer, usage.module); };
  for (const LayerUsage& from : other) {
    const auto at = std::lower_bound(layers.begin(), layers.end(), from,
                                     [&](const auto& a, const auto& b) { return key(a) < key(b); });
    if (at != layers.end() && key(*at) == key(from)) {
      at->expert_runs += from.expert_runs;
    } else {
      layers.insert(at, from);
    }
  }
}

}  // namespace

std::string_view ModuleName(Module module) {
  switch (module) {
    case Module::kFfn:
      return "ffn";
    case Module::kQ:
      return "q";
    case Module::kK:
      return "k";
    case Module::kV:
      return "v";
    case Module::kO:
      return "o";
  }
  return "unknown";
}

void Usage::Add(const Usage& other) {
  const double own_tokens = double(prompt_tokens) + output_tokens;
  const double other_tokens = double(other.prompt_tokens) + other.output_tokens;
  if (own_tokens == 0) {
    tau = other.tau;
  } else {
    // In this form the mean of equal taus is exactly that tau.
    tau += (other.tau - tau) * (other_tokens / (own_tokens + other_tokens));
  }
  layer_tokens = LayerTokens() + other.LayerTokens();
  flops += other.flops;
  dense_flops += other.dense_flops;
  prompt_tokens += other.prompt_tokens;
  output_tokens += other.output_tokens;
  MergeLayers(other.layers, layers);
  queue_us = std::max(queue_us, other.queue_us);
  compute_us = std::max(compute_us, other.compute_us);
  budget_clamped |= other.budget_clamped;
  degraded |= other.degraded;
  truncated |= other.truncated;
}

}  // namespace dimmer
