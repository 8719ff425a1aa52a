// One generation in flight: what it may do, how far it is, and where its tokens go.
//
// Thread safety: none; a Generation belongs to the worker that advances its sequence.
#ifndef DIMMER_ENGINE_MODELS_GENERATION_H_
#define DIMMER_ENGINE_MODELS_GENERATION_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/budget/generation_budget.h"
#include "engine/sampling/sampler.h"

namespace dimmer {

// Prompts run in chunks that end at multiples of this position, whatever else runs: what a chunk
// may spend, and so its bits, do not depend on load.
inline constexpr uint32_t kPromptChunk = 64;

enum class FinishReason : uint8_t {
  kNone,       // not finished, or failed
  kLength,     // max_new_tokens
  kStop,       // the sink said so: a stop string
  kEndOfText,  // the model said so; the token is not handed to the sink
  kBudget,     // max_flops does not pay another token
};
std::string_view FinishReasonName(FinishReason reason);  // "none", "length", "stop", ...

// Takes the tokens of one sequence. Called on the worker's thread between the steps; must not block
// and must not throw.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  enum class Verdict : uint8_t {
    kContinue,
    kStop,  // finish with kStop
  };
  virtual Verdict OnToken(int32_t id, float logprob) = 0;
  // False: its reader is behind; the scheduler leaves the sequence out of steps until it is ready,
  // of which Scheduler::Wake() tells the workers. Only OnToken makes it false. Any thread may ask.
  virtual bool ready() const = 0;
  // When its reader last took something; a sink that does not know says nothing new.
  virtual std::chrono::steady_clock::time_point last_read() const {
    return std::chrono::steady_clock::time_point::min();
  }
};

struct Generation {
  // In.
  uint32_t max_new_tokens = 0;  // at least 1
  Sampling sampling;
  TokenSink* sink = nullptr;  // may be null; outlives the sequence

  // State, of the model. Sequence::ids holds prompt and output, so far.
  uint32_t prompt_tokens = 0;  // set with the prompt
  uint32_t computed = 0;       // tokens whose keys and values are in the cache
  std::optional<GenerationBudget> budget;

  // Out.
  FinishReason finish_reason = FinishReason::kNone;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODELS_GENERATION_H_
