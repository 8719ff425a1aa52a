#include "engine/budget/cost_model.h"

#include <cstddef>

namespace dimmer {

CostModel CostModel::WithoutHead() const {
  CostModel cost = *this;
  cost.sequence_flops = 0;
  return cost;
}

uint64_t CostModel::FixedFlops(uint64_t tokens) const {
  if (causal) return FixedFlops(TokenSpan{.first = 0, .tokens = tokens, .heads = 1});
  return tokens * token_flops + tokens * tokens * attention_flops + sequence_flops;
}

uint64_t CostModel::DenseFlops(uint64_t tokens) const {
  uint64_t flops = FixedFlops(tokens);
  for (const MoeCost& module : moe) flops += tokens * module.dense_flops();
  return flops;
}

uint64_t CostModel::FloorFlops(uint64_t tokens) const {
  uint64_t flops = FixedFlops(tokens);
  for (const MoeCost& module : moe) flops += tokens * (module.router_flops + module.pair_flops);
  return flops;
}

uint64_t CostModel::Flops(uint64_t tokens, std::span<const uint64_t> expert_runs,
                          std::span<const bool> routed) const {
  uint64_t flops = FixedFlops(tokens);
  for (size_t i = 0; i < moe.size(); ++i) {
    flops += expert_runs[i] * moe[i].pair_flops;
    if (routed[i]) flops += tokens * moe[i].router_flops;
  }
  return flops;
}

uint64_t CostModel::FixedFlops(const TokenSpan& span) const {
  // Position p attends to p + 1 keys.
  const uint64_t attended = span.tokens * span.first + span.tokens * (span.tokens + 1) / 2;
  return span.tokens * token_flops + attended * attention_flops + span.heads * sequence_flops;
}

uint64_t CostModel::DenseFlops(const TokenSpan& span) const {
  uint64_t flops = FixedFlops(span);
  for (const MoeCost& module : moe) flops += span.tokens * module.dense_flops();
  return flops;
}

}  // namespace dimmer
