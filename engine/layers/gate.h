// Which experts each token runs. Pure functions of router scores.
//
// Scores are non-negative (routers end in an absolute value) and `mask` bytes are 0 or 1. Edges, in
// every rule: all scores zero, expert 0 alone; any score not finite, all experts run and the token
// is counted.
#ifndef DIMMER_ENGINE_LAYERS_GATE_H_
#define DIMMER_ENGINE_LAYERS_GATE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/package/package.h"

namespace dimmer {

// A rule that decides for every token alone.
struct TokenGate {
  GateKind kind = GateKind::kDynamicK;
  // Dynamic-k (Eq. 4 of the paper): expert n runs iff score_n >= tau * max score; ties run. Top-k:
  // tau only switches. The layer takes 0 for the dense path and does not ask the gate; at any other
  // tau (a top-k model's default is 1) the top_k best run. Quotas hold for both kinds alike.
  double tau = 0;
  uint32_t top_k = 1;  // top-k: exactly so many (of equal scores the lower experts)
};

struct TokenChoice {
  uint32_t run = 0;  // experts, at least 1
  bool non_finite = false;
};

// scores, mask [experts]; experts >= 1.
TokenChoice GateToken(const TokenGate& gate, std::span<const float> scores,
                      std::span<uint8_t> mask);

// The budgeted rule, for all tokens of a sequence together: `pairs` (token, expert) pairs run,
// those with the largest score / max of their token, so that tau is the matching quantile over the
// sequence's own pairs. A token's best expert always runs; of equal ratios the lower token's, then
// the lower expert's run first, which makes the number exact.
struct QuotaGate {
  uint64_t pairs = 0;
  // Bounds on the resulting tau; they win over `pairs`. A pair below min_tau never runs (unless it
  // is its token's best), one at max_tau or above always does (where max_tau < 1).
  double min_tau = 0;
  double max_tau = 1;
  // Never run more than `pairs`. If max_tau (or the number of tokens) demands more, `needed` says
  // so. A token with a score that is not finite then runs as many experts as fit, and otherwise
  // all.
  bool hard = false;
};

struct QuotaChoice {
  uint64_t run = 0;         // pairs in the mask
  uint64_t needed = 0;      // pairs that the bounds demand; more than `pairs` only there
  double tau = 1;           // the smallest score / max that runs; 0 where all pairs run
  bool bounded = false;     // min_tau or max_tau changed the choice
  uint64_t non_finite = 0;  // tokens
};

// `scores` [tokens, stride]; `mask` [tokens, experts].
QuotaChoice GateQuota(const QuotaGate& gate, const float* scores, size_t stride, size_t tokens,
                      size_t experts, std::span<uint8_t> mask);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_GATE_H_
