// Exact FLOPs of one sequence. Counted: every matrix product that runs (projections, attention
// scores and values, FFN or experts, routers, head). Not counted, dense or not: embeddings, norms,
// softmax, biases, activations.
#ifndef DIMMER_ENGINE_BUDGET_COST_MODEL_H_
#define DIMMER_ENGINE_BUDGET_COST_MODEL_H_

#include <cstdint>
#include <span>
#include <vector>

#include "engine/budget/usage.h"

namespace dimmer {

// The cost of one MoE module.
struct MoeCost {
  uint32_t layer = 0;
  Module module = Module::kFfn;
  uint32_t experts = 0;
  uint64_t pair_flops = 0;    // one (token, expert) pair
  uint64_t router_flops = 0;  // per token; spent only where the router runs (tau > 0)
  uint64_t dense_flops() const { return pair_flops * experts; }  // per token
};

// Consecutive positions [first, first + tokens) of one sequence that a causal model computes.
struct TokenSpan {
  uint64_t first = 0;
  uint64_t tokens = 0;
  uint64_t heads = 0;  // how many of them run the head
};

// Filled in by the model when it loads; pure arithmetic afterwards.
struct CostModel {
  uint64_t token_flops = 0;      // per token: all dense linear layers that are not MoE modules
  uint64_t attention_flops = 0;  // per (query, key) pair, over all layers: scores and values
  // The head. An encoder runs it once per sequence; a causal model, once per position whose logits
  // are computed.
  uint64_t sequence_flops = 0;
  std::vector<MoeCost> moe;  // ascending (layer, module); empty for a plain checkpoint
  // A position attends to itself and what is before it, not to all of the sequence.
  bool causal = false;

  // The same without the head, which embeddings do not run.
  CostModel WithoutHead() const;
  // A whole sequence's; a causal model's with one head, on the last position.
  // Everything but the MoE modules' experts and routers.
  uint64_t FixedFlops(uint64_t tokens) const;
  uint64_t DenseFlops(uint64_t tokens) const;
  // With all routers and one expert per token and module: no MoE run costs less.
  uint64_t FloorFlops(uint64_t tokens) const;
  // `expert_runs[i]` pairs in module i; `routed[i]` whether its router ran.
  uint64_t Flops(uint64_t tokens, std::span<const uint64_t> expert_runs,
                 std::span<const bool> routed) const;

  // The same of a part of a causal model's sequence.
  uint64_t FixedFlops(const TokenSpan& span) const;
  uint64_t DenseFlops(const TokenSpan& span) const;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_BUDGET_COST_MODEL_H_
