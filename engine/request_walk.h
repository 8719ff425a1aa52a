// The two ends of a request's walk, as functions without state: texts to sequences with plans, and
// finished sequences to results.
#ifndef DIMMER_ENGINE_REQUEST_WALK_H_
#define DIMMER_ENGINE_REQUEST_WALK_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace dimmer {

// One text may have this many bytes, far more than any model takes. Longer ones are refused before
// they cost a tokenizer's time.
inline constexpr size_t kMaxTextBytes = size_t{1} << 20;

// A model with what belongs to it. Immutable, shared by the requests that use it.
struct LoadedModel {
  std::shared_ptr<const ServedModel> served;
  std::shared_ptr<const Tokenizer> tokenizer;  // null: serves token_ids only
  uint32_t max_tokens = 0;                     // of one text

  const std::string& name() const { return served->name; }
  const ModelInfo& info() const { return served->model->info(); }
};

// Number of texts (or rows of token_ids).
size_t SequenceCount(const Request& request);

// What can be refused without the model, before the request waits anywhere and holds its texts.
// InvalidArgument names the text.
absl::Status CheckTextSizes(const Request& request);

// What can be refused without work. InvalidArgument names the field.
absl::Status CheckRequest(const Request& request, const LoadedModel& model);

// Tokenizes and plans a request that CheckRequest has passed. `check` is asked before each text and
// ends the work if it fails. InvalidArgument names the text; else what PlanCall returns.
struct Prepared {
  std::vector<Sequence> sequences;
  std::vector<bool> truncated;  // per sequence
};
absl::StatusOr<Prepared> Prepare(const Request& request, const LoadedModel& model,
                                 const TauSettings& settings,
                                 const std::function<absl::Status()>& check);

// Probabilities by class: of one label that applies, or (`multi_label`) of each on its own.
std::vector<float> Scores(std::span<const float> logits, bool multi_label);

// Answers for finished sequences, which are moved from. If any of them failed, so has the call: the
// first failure by number names its text; the usage is still that of all.
Response MakeResponse(const LoadedModel& model, std::span<Sequence> sequences,
                      const std::vector<bool>& truncated);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_REQUEST_WALK_H_
