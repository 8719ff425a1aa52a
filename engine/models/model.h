// The one interface between the scheduler and the model families.
//
// A Model is immutable after Load and shared by all threads; all state of a request is in its
// Sequence. Forward() advances every sequence of a batch by one step. An encoder's sequence is
// finished by its only step; a decoder's stays in the batch until it says so, and the scheduler
// lets sequences join and leave between steps without knowing which kind it runs.
#ifndef DIMMER_ENGINE_MODELS_MODEL_H_
#define DIMMER_ENGINE_MODELS_MODEL_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/budget/budget.h"
#include "engine/budget/calibration.h"
#include "engine/budget/cost_model.h"
#include "engine/budget/usage.h"
#include "engine/layers/kv_cache.h"
#include "engine/models/generation.h"
#include "engine/package/package.h"
#include "engine/util/thread_pool.h"

namespace dimmer {

enum class Task : uint8_t { kClassification, kEmbedding, kGeneration, kScoring };

struct ModelInfo {
  std::string architecture;         // "BertForSequenceClassification"
  std::vector<Task> tasks;          // what it can answer; every encoder embeds
  std::vector<std::string> labels;  // by class index; empty without a classifier
  bool multi_label = false;         // scores by sigmoid per label instead of softmax
  uint32_t max_tokens = 0;          // position limit
  uint32_t width = 0;               // d
  uint32_t layers = 0;
  uint32_t vocab_size = 0;
  KvShape kv;                       // all 0: keeps no keys and values (encoders)
  std::vector<int32_t> end_ids;     // tokens that end a text
  uint32_t default_max_tokens = 0;  // of a generation that does not say
  std::string dtype;                // of the stored weights
  uint64_t parameters = 0;
  uint64_t weight_bytes = 0;  // resident
  CostModel cost;
  Calibration calibration;
  GateSpec gate;
  bool converted = false;
  nlohmann::json provenance;
};

// One text (later: one generation) in flight.
struct Sequence {
  // In.
  Task task = Task::kClassification;
  std::vector<int32_t> ids;       // a generation's prompt, to which its tokens are appended
  std::vector<int32_t> type_ids;  // same length
  ComputePlan plan;
  std::unique_ptr<Generation> generation;  // kGeneration: never null
  KvPages kv;  // reserved by the scheduler before the first step, released when finished
  // Checked between layers. The sequence leaves the batch with Cancelled or DeadlineExceeded.
  const std::atomic<bool>* cancelled = nullptr;
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();

  // Out, when `finished`.
  bool finished = false;
  absl::Status status;
  std::vector<float> logits;          // [classes]
  std::vector<float> embedding;       // [d], mean over tokens, L2-normalised
  std::vector<float> token_logprobs;  // kScoring: log p(ids[i + 1] | ids[0..i]), [ids - 1]
  Usage usage;                        // without times
};

// Finishes a sequence without its answer; what it has used until now is in its usage.
inline void Stop(Sequence& sequence, absl::Status status) {
  sequence.finished = true;
  sequence.status = std::move(status);
  const Generation* state = sequence.generation.get();
  if (state == nullptr || !state->budget) return;  // nothing of it ran
  state->budget->Report(sequence.usage);
  sequence.usage.prompt_tokens = std::min(state->computed, state->prompt_tokens);
  sequence.usage.output_tokens = static_cast<uint32_t>(sequence.ids.size()) - state->prompt_tokens;
}

// What a batch did, gathered locally and flushed once per batch into metrics.
struct ModuleStats {
  std::vector<uint64_t> expert_tokens;      // [experts] tokens that ran each expert
  std::vector<uint64_t> experts_per_token;  // [experts + 1] histogram
  uint64_t non_finite_scores = 0;           // tokens whose router gave a non-finite score
};
struct StepStats {
  uint64_t tokens = 0;               // rows that ran
  uint64_t prompt_tokens = 0;        // of them, tokens of prompts and of encoders' texts
  uint64_t output_tokens = 0;        // tokens that generations got
  std::vector<ModuleStats> modules;  // as CostModel::moe
};

// Scratch memory and threads of one scheduler worker.
class Workspace;  // engine/layers/workspace.h
struct StepContext {
  ThreadPool& pool;
  Workspace& workspace;
  StepStats* stats = nullptr;  // optional
  // A decoder's step runs so many rows of prompts, in whole chunks, first come first served; one
  // chunk at least. 0: no limit.
  uint32_t max_prompt_tokens = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelInfo& info() const = 0;
  // Advances `batch` by one step. Results do not depend on what else is in the batch or on
  // context.pool.threads(), bit for bit. Errors are per sequence, in Sequence::status.
  virtual void Forward(std::span<Sequence* const> batch, StepContext& context) const = 0;
};

// Builds the model for package.architecture. Unimplemented names the architecture and those known.
absl::StatusOr<std::unique_ptr<Model>> LoadModel(const Package& package);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODELS_MODEL_H_
