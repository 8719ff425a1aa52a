// Picks the next token from a row of logits. Pure functions: the same logits, settings and position
// give the same token, whatever else runs.
//
// The order is that of transformers' processors: temperature, top-k, top-p, then a draw. The
// random number of a position is a function of (seed, position) alone, so no state runs along with
// a generation. Weights are floats, their sums doubles, in a fixed order.
//
// Thread safety: functions of their arguments; a scratch belongs to one thread at a time.
#ifndef DIMMER_ENGINE_SAMPLING_SAMPLER_H_
#define DIMMER_ENGINE_SAMPLING_SAMPLER_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace dimmer {

struct Sampling {
  float temperature = 0;  // 0: greedy, and the rest is not looked at
  uint32_t top_k = 0;     // 0: no cut
  float top_p = 0;        // 0 or 1: no cut
  uint64_t seed = 0;
};

struct Sampled {
  int32_t id = 0;
  float logprob = 0;  // natural log of its share in the softmax of the logits as given
};

// Kept for its capacity.
struct SamplerScratch {
  struct Candidate {
    float logit;
    int32_t id;
  };
  std::vector<Candidate> candidates;
  std::vector<float> weights;  // [vocabulary] or [candidates]
};

// `logits` [vocabulary], at least one. Greedy takes the lowest id among equals; top-k keeps the
// lower ids among equals; top-p keeps the smallest number of best tokens whose shares reach top_p.
// Minus infinity is a token that never comes. Internal names the first logit that is NaN or plus
// infinity, or says that all are minus infinity.
absl::StatusOr<Sampled> SampleToken(std::span<const float> logits, const Sampling& sampling,
                                    uint64_t position, SamplerScratch& scratch);

// Natural log of the share of `id` in the softmax of `logits`. Errors as SampleToken.
absl::StatusOr<float> TokenLogProb(std::span<const float> logits, int32_t id);

// Uniform in [0, 1), 53 bits: Philox4x32-10 (Salmon et al. 2011) of the counter `position` under
// the key `seed`.
double UniformAt(uint64_t seed, uint64_t position);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_SAMPLING_SAMPLER_H_
