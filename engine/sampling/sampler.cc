#include "engine/sampling/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>

#include "engine/kernels/rowwise.h"
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

// `sum` of exp(logit - max).
float LogProb(std::span<const float> logits, float max, double sum, int32_t id) {
  return static_cast<float>(double{logits[static_cast<size_t>(id)]} - double{max} - std::log(sum));
}

void Gather(std::span<const float> logits, std::vector<Candidate>& candidates) {
  candidates.clear();
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates.push_back({logits[i], static_cast<int32_t>(i)});
  }
}

// Puts the best of candidates [first, end) into [first, last), best first.
void SortBest(std::vector<Candidate>& candidates, size_t first, size_t last) {
  const auto at = [&](size_t i) { return candidates.begin() + static_cast<std::ptrdiff_t>(i); };
  if (last < candidates.size()) {
    std::nth_element(at(first), at(last), candidates.end(), Better);
  }
  std::sort(at(first), at(last), Better);
}

// How many of the candidates reach `enough`, best first; they are sorted as far as it takes.
// `weight_of` is non-increasing in that order.
template <typename WeightOf>
size_t Nucleus(std::vector<Candidate>& candidates, size_t sorted, double enough,
               const WeightOf& weight_of) {
  double share = 0;
  size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || share < enough)) {
    if (kept == sorted) {
      const size_t more = std::min(candidates.size(), std::max<size_t>(64, sorted * 8));
      SortBest(candidates, sorted, more);
      sorted = more;
    }
    share += weight_of(candidates[kept++]);
  }
  return kept;
}

// The index that `uniform` in [0, 1) draws. The last of positive weight takes what rounding leaves
// over.
size_t Draw(std::span<const float> weights, double uniform) {
  double sum = 0;
  for (const float weight : weights) sum += double{weight};
  const double drawn = uniform * sum;
  size_t chosen = 0;
  double passed = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0) continue;
    chosen = i;
    passed += double{weights[i]};
    if (drawn < passed) break;
  }
  return chosen;
}

int32_t DrawToken(std::span<const float> logits, float max, const Sampling& sampling,
                  uint64_t position, SamplerScratch& scratch) {
  const double uniform = UniformAt(sampling.seed, position);
  // A temperature near 0 has no inverse in a float; the largest one separates all that differs.
  const float scale = std::min(1 / sampling.temperature, std::numeric_limits<float>::max());
  std::vector<float>& weights = scratch.weights;
  const bool top_k = sampling.top_k > 0 && sampling.top_k < logits.size();
  const bool top_p = sampling.top_p > 0 && sampling.top_p < 1;
  if (!top_k && !top_p) {
    weights.resize(logits.size());
    ExpShifted(logits.data(), logits.size(), max, scale, weights.data());
    return static_cast<int32_t>(Draw(weights, uniform));
  }
  std::vector<Candidate>& candidates = scratch.candidates;
  Gather(logits, candidates);
  const auto weight_of = [&](const Candidate& candidate) {
    return std::exp((double{candidate.logit} - double{max}) * double{scale});
  };
  double sum = 0;
  if (top_k) {
    SortBest(candidates, 0, sampling.top_k);
    candidates.resize(sampling.top_k);
    for (const Candidate& candidate : candidates) sum += weight_of(candidate);
  } else {
    sum = ExpShifted(logits.data(), logits.size(), max, scale, nullptr);
  }
  if (top_p) {
    candidates.resize(Nucleus(candidates, top_k ? candidates.size() : 0,
                              double{sampling.top_p} * sum, weight_of));
  }
  weights.clear();
  for (const Candidate& candidate : candidates) {
    weights.push_back(static_cast<float>(weight_of(candidate)));
  }
  return candidates[Draw(weights, uniform)].id;
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
  const float max = logits[static_cast<size_t>(best)];
  return LogProb(logits, max, ExpShifted(logits.data(), logits.size(), max, 1, nullptr), id);
}

absl::StatusOr<Sampled> SampleToken(std::span<const float> logits, const Sampling& sampling,
                                    uint64_t position, SamplerScratch& scratch) {
  const int32_t best = FindBest(logits);
  if (best < 0) return NoDistribution(logits);
  const float max = logits[static_cast<size_t>(best)];
  const int32_t id =
      sampling.temperature > 0 ? DrawToken(logits, max, sampling, position, scratch) : best;
  const double sum = ExpShifted(logits.data(), logits.size(), max, 1, nullptr);
  return Sampled{id, LogProb(logits, max, sum, id)};
}

}  // namespace dimmer
