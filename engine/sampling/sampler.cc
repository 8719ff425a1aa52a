#include "engine/sampling/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>

#include "engine/util/status.h"

namespace dimmer {
namespace {

using Candidate = SamplerScratch::Candidate;

// Best first; of equals the lower id.
bool Better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

absl::Status NoDistribution(std::span<const float> logits) {
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      return absl::InternalError(
          fmt::format("the model's logit of token {} is {}, expected a number", i, logits[i]));
    }
  }
  return absl::InternalError(
      fmt::format("all {} logits of the model are minus infinity, expected a number among them",
                  logits.size()));
}

// The id of the largest logit (the lowest of equals), or -1 where there is no distribution.
int32_t FindBest(std::span<const float> logits) {
  int32_t best = -1;
  float max = -std::numeric_limits<float>::infinity();
  bool sound = true;
  for (size_t i = 0; i < logits.size(); ++i) {
    sound &= logits[i] < std::numeric_limits<float>::infinity();  // false for NaN
    if (logits[i] > max) {
      max = logits[i];
      best = static_cast<int32_t>(i);
    }
  }
  return sound ? best : -1;
}

float LogProb(std::span<const float> logits, float max, int32_t id) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - double{max});
  return static_cast<float>(double{logits[static_cast<size_t>(id)]} - double{max} - std::log(sum));
}

// What top-k leaves, best first where a cut needs that order.
void Gather(std::span<const float> logits, const Sampling& sampling, bool ordered,
            std::vector<Candidate>& candidates) {
  candidates.clear();
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates.push_back({logits[i], static_cast<int32_t>(i)});
  }
  if (sampling.top_k > 0 && sampling.top_k < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + sampling.top_k, candidates.end(),
                     Better);
    candidates.resize(sampling.top_k);
    ordered = true;  // nth_element's own order is the library's choice
  }
  if (ordered) std::sort(candidates.begin(), candidates.end(), Better);
}

}  // namespace

double UniformAt(uint64_t seed, uint64_t position) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  std::array<uint32_t, 4> counter = {static_cast<uint32_t>(position),
                                     static_cast<uint32_t>(position >> 32), 0, 0};
  std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{kMultiplier0} * counter[0];
    const uint64_t product1 = uint64_t{kMultiplier1} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  const uint64_t bits = uint64_t{counter[1]} << 32 | counter[0];
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

absl::StatusOr<float> TokenLogProb(std::span<const float> logits, int32_t id) {
  const int32_t best = FindBest(logits);
  if (best < 0) return NoDistribution(logits);
  return LogProb(logits, logits[static_cast<size_t>(best)], id);
}

absl::StatusOr<Sampled> SampleToken(std::span<const float> logits, const Sampling& sampling,
                                    uint64_t position, SamplerScratch& scratch) {
  const int32_t best = FindBest(logits);
  if (best < 0) return NoDistribution(logits);
  const float max = logits[static_cast<size_t>(best)];
  if (!(sampling.temperature > 0)) return Sampled{best, LogProb(logits, max, best)};

  const bool cut = sampling.top_p > 0 && sampling.top_p < 1;
  Gather(logits, sampling, cut, scratch.candidates);
  const std::vector<Candidate>& candidates = scratch.candidates;
  scratch.weights.resize(candidates.size());
  double sum = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    scratch.weights[i] =
        std::exp((double{candidates[i].logit} - double{max}) / double{sampling.temperature});
    sum += scratch.weights[i];
  }
  size_t kept = candidates.size();
  if (cut) {
    const double enough = double{sampling.top_p} * sum;
    double share = 0;
    for (kept = 0; kept < candidates.size() && (kept == 0 || share < enough); ++kept) {
      share += scratch.weights[kept];
    }
    sum = share;
  }
  // The last candidate of positive weight takes what rounding leaves over.
  const double drawn = UniformAt(sampling.seed, position) * sum;
  size_t chosen = 0;
  double passed = 0;
  for (size_t i = 0; i < kept; ++i) {
    if (scratch.weights[i] <= 0) continue;
    chosen = i;
    passed += scratch.weights[i];
    if (drawn < passed) break;
  }
  const int32_t id = candidates[chosen].id;
  return Sampled{id, LogProb(logits, max, id)};
}

}  // namespace dimmer
