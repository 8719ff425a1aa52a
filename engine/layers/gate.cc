#include "engine/layers/gate.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace dimmer {
namespace {

struct Best {
  float score = 0;
  uint32_t expert = 0;
  bool finite = true;
};

Best FindBest(std::span<const float> scores) {
  Best best;
  best.score = scores[0];
  float check = 0;  // infinite or NaN as soon as one score is
  for (uint32_t n = 0; n < scores.size(); ++n) {
    check += scores[n] * 0.0f;
    if (scores[n] > best.score) {
      best.score = scores[n];
      best.expert = n;
    }
  }
  best.finite = check == 0.0f;
  return best;
}

// The smallest float that is >= tau * max, so that one float comparison decides as exactly as real
// numbers would.
float Threshold(double tau, float max) {
  const double exact = tau * double{max};
  auto rounded = static_cast<float>(exact);
  if (double{rounded} < exact) {
    rounded = std::nextafter(rounded, std::numeric_limits<float>::infinity());
  }
  return rounded;
}

uint32_t RunAll(std::span<uint8_t> mask) {
  std::fill(mask.begin(), mask.end(), uint8_t{1});
  return static_cast<uint32_t>(mask.size());
}

uint32_t RunOnly(std::span<uint8_t> mask, uint32_t expert) {
  std::fill(mask.begin(), mask.end(), uint8_t{0});
  mask[expert] = 1;
  return 1;
}

uint32_t RunTopK(std::span<const float> scores, uint32_t k, std::span<uint8_t> mask) {
  k = std::clamp<uint32_t>(k, 1, static_cast<uint32_t>(scores.size()));
  std::vector<uint32_t> order(scores.size());
  for (uint32_t n = 0; n < order.size(); ++n) order[n] = n;
  std::nth_element(order.begin(), order.begin() + (k - 1), order.end(),
                   [&](uint32_t a, uint32_t b) {
                     return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
                   });
  std::fill(mask.begin(), mask.end(), uint8_t{0});
  for (uint32_t i = 0; i < k; ++i) mask[order[i]] = 1;
  return k;
}

}  // namespace

TokenChoice GateToken(const TokenGate& gate, std::span<const float> scores,
                      std::span<uint8_t> mask) {
  const Best best = FindBest(scores);
  if (!best.finite) return {RunAll(mask), true};
  if (best.score == 0) return {RunOnly(mask, 0), false};
  if (gate.kind == GateKind::kTopK) return {RunTopK(scores, gate.top_k, mask), false};
  const float threshold = Threshold(gate.tau, best.score);
  uint32_t run = 0;
  for (size_t n = 0; n < scores.size(); ++n) {
    const uint8_t runs = scores[n] >= threshold;
    mask[n] = runs;
    run += runs;
  }
  return {run, false};
}

QuotaChoice GateQuota(const QuotaGate& gate, const float* scores, size_t stride, size_t tokens,
                      size_t experts, std::span<uint8_t> mask) {
  QuotaChoice choice;
  // What may run beside what must: ascending keys are best ratio, then lowest token, then expert.
  std::vector<uint64_t> optional;
  float smallest_ratio = 1.0f;  // that runs
  bool below_minimum = false;
  for (size_t t = 0; t < tokens; ++t) {
    const std::span<const float> token(scores + t * stride, experts);
    const std::span<uint8_t> runs = mask.subspan(t * experts, experts);
    const Best best = FindBest(token);
    const bool open = !best.finite;  // every expert counts as its best
    if (open) ++choice.non_finite;
    if (open && !gate.hard) {
      choice.run += RunAll(runs);
      continue;
    }
    const float max = open ? 1.0f : best.score;
    const float must = gate.max_tau < 1 && max > 0 ? Threshold(gate.max_tau, max)
                                                   : std::numeric_limits<float>::infinity();
    const float may = Threshold(gate.min_tau, max);
    RunOnly(runs, open || max == 0 ? 0 : best.expert);
    ++choice.run;
    for (size_t n = 0; n < experts; ++n) {
      if (runs[n] != 0) continue;
      const float score = open ? 1.0f : token[n];
      const float ratio = max > 0 ? score / max : 0.0f;
      if (score >= must) {
        runs[n] = 1;
        ++choice.run;
        smallest_ratio = std::min(smallest_ratio, ratio);
      } else if (score >= may && !(max == 0 && gate.min_tau > 0)) {
        const uint64_t order = ~std::bit_cast<uint32_t>(ratio);
        optional.push_back(order << 32 | (t * experts + n));
      } else {
        below_minimum = true;
      }
    }
  }
  choice.needed = choice.run;
  choice.bounded = choice.run > gate.pairs;
  if (choice.run < gate.pairs) {
    const size_t more = std::min<uint64_t>(gate.pairs - choice.run, optional.size());
    if (more < optional.size()) {
      std::nth_element(optional.begin(), optional.begin() + more, optional.end());
    }
    for (size_t i = 0; i < more; ++i) {
      mask[optional[i] & 0xffffffff] = 1;
      smallest_ratio =
          std::min(smallest_ratio, std::bit_cast<float>(~static_cast<uint32_t>(optional[i] >> 32)));
    }
    choice.run += more;
    choice.bounded = choice.run < gate.pairs && below_minimum;
  }
  choice.tau = choice.run == tokens * experts ? 0.0 : double{smallest_ratio};
  choice.tau = std::clamp(choice.tau, gate.min_tau, std::max(gate.min_tau, gate.max_tau));
  return choice;
}

}  // namespace dimmer
