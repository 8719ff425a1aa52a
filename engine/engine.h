// Start here: the engine as a program embeds it. No gRPC, no protobuf.
//
//   auto engine = Engine::Create(options);
//   engine->Load(entry);                                   // entry from ScanRepository()
//   auto ticket = engine->Submit(request, [](const Response& response) { ... });
//   ticket.Cancel();                                       // optional
//
// One request is one walk: Submit -> (front thread) tokenize, plan the budget -> Scheduler ->
// Model::Forward -> callback.
//
// Thread safety: all methods may be called from any thread.
#ifndef DIMMER_ENGINE_ENGINE_H_
#define DIMMER_ENGINE_ENGINE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/budget/budget.h"
#include "engine/models/generation.h"
#include "engine/models/model.h"
#include "engine/package/repository.h"
#include "engine/scheduler/scheduler.h"
#include "engine/text/tokenizer.h"

namespace dimmer {

struct EngineOptions {
  uint32_t threads = 0;  // compute threads in all; 0: one per core
  uint32_t workers = 0;  // batches at the same time; 0: threads / 4, at least 1
  uint32_t max_queue_size = 1024;
  // A generation whose reader takes nothing for so long ends with Aborted.
  std::chrono::nanoseconds reader_timeout = std::chrono::minutes(10);
  std::string state_dir;  // where SetTau is kept; "" keeps nothing
};

// How a generation goes on. Zeros as in the API: the model's default, greedy, no cut, a fresh seed.
struct GenerateOptions {
  uint32_t max_tokens = 0;        // 0: the model's default, or what is left of its context if less
  Sampling sampling;              // seed 0: a fresh one, which the result says
  std::vector<std::string> stop;  // the text ends before the first of these
};
inline constexpr size_t kMaxStopStrings = 16;
inline constexpr size_t kMaxStopBytes = 1024;  // each

// A part of a generation's text as it comes. Ends between characters and where no stop string can
// begin: the tokens of what is held back come with the text that completes it.
struct Piece {
  std::string text;
  std::vector<int32_t> ids;
  std::vector<float> logprobs;  // one per id, natural log
};

// One call. Either `texts` (with `text_pairs`, empty or of the same length) or `token_ids`.
struct Request {
  std::string model;
  std::string version;  // "" is the one served
  Task task = Task::kClassification;
  std::vector<std::string> texts;
  std::vector<std::string> text_pairs;
  std::vector<std::vector<int32_t>> token_ids;  // ready ids with special tokens; never cut
  Budget budget;
  bool truncate = false;
  // Task::kGeneration: exactly one text, or row of token_ids, which is the prompt.
  std::optional<GenerateOptions> generate;
  // Takes the pieces, in order, before the answer, which has the whole text again; may be null.
  // Runs on an engine thread and must not block. False: this was taken, but no more is wanted until
  // Ticket::Resume(); the generation pauses. (Where it ends meanwhile, one more piece may come.)
  std::function<bool(Piece)> on_piece;
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};

struct Result {
  std::vector<float> logits;     // classification, [classes]
  std::vector<float> scores;     // classification, [classes]: softmax, or sigmoid if multi_label
  std::vector<float> embedding;  // embedding, [d]
  // Generation, without the prompt. The ids include those of a stop string, the text does not.
  std::string text;
  std::vector<int32_t> output_ids;
  // Natural log; generation: one per output id; scoring: of each token but the first, given those
  // before it.
  std::vector<float> logprobs;
  FinishReason finish_reason = FinishReason::kNone;
  uint64_t seed = 0;            // generation: as used
  uint64_t first_token_us = 0;  // generation: from Submit to the first token, 0 without any
  uint64_t last_token_us = 0;   // and to the last
  Usage usage;
};

struct Response {
  absl::Status status;          // not OK: no results
  std::string model, version;   // as served; set where the model was found
  std::vector<Result> results;  // one per text, in order
  Usage usage;                  // their sum; of a failed call, what it used until then
};

// How tau stands for one model.
struct TauState {
  TauSettings settings;
  std::optional<std::chrono::system_clock::time_point> expires;  // then back to `base`
};

// A change to it; unset fields stay.
struct TauChange {
  std::optional<double> default_tau, min_tau, max_tau;
  struct LayerTau {
    uint32_t layer = 0;
    Module module = Module::kFfn;
    double tau = 0;
  };
  std::vector<LayerTau> layers;     // replaces these; others stay
  uint64_t if_revision = 0;         // 0: whatever it is
  std::chrono::nanoseconds ttl{0};  // 0: for good, and ends temporary values of the same fields
  bool dry_run = false;
};

struct TauPrediction {  // at settings.default_tau, from the calibration; absent for plain
                        // checkpoints
  double flop_fraction = 1;
  double quality = 0, quality_low = 0, quality_high = 0;
  std::string metric;
};

struct TauAnswer {
  TauState state;  // in force (dry_run: as it would be)
  // Set where temporary values of an earlier change, which would have ended then, now end at
  // state.expires.
  std::optional<std::chrono::system_clock::time_point> moved_expiry;
  std::optional<TauPrediction> predicted;
};

struct ModelStatus {
  std::string name, version;
  bool ready = false;
  absl::Status status;  // of the last load: may be an error while an older version is ready
  double load_seconds = 0;
  std::shared_ptr<const ServedModel> served;  // null unless ready
};

class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Create(EngineOptions options,
                                                        SchedulerObserver* observer);
  ~Engine();

  // Opens, checks and packs; the old version serves on until the new one is ready. A failure is
  // returned and remembered in Models(); nothing else is disturbed.
  absl::Status Load(const RepositoryEntry& entry);

  std::vector<ModelStatus> Models() const;
  // NotFound "Request for unknown model: ..."; Unavailable if it failed to load. `version` "" is
  // any.
  absl::StatusOr<std::shared_ptr<const ServedModel>> Find(const std::string& model,
                                                          const std::string& version) const;

  class Ticket {
   public:
    Ticket() = default;
    void Cancel();  // idempotent; the callback still runs, once, with Cancelled or the result
    // The reader of on_piece has room again. Harmless if nothing is paused or all is over. Must not
    // be called from within on_piece's own call.
    void Resume();
    // It took something, and has no room yet: its reader_timeout begins anew.
    void Touch();

   private:
    friend class Engine;
    struct State;
    explicit Ticket(std::shared_ptr<State> state) : state_(std::move(state)) {}
    std::shared_ptr<State> state_;
  };
  // `done` runs exactly once, on an engine thread, for refusals too; it must not block.
  Ticket Submit(Request request, std::function<void(Response)> done);

  // Tokenizes on the calling thread. `check` is asked before each text and ends the work if it
  // fails. InvalidArgument names the text, or the bytes of all if they are more than 1 MiB: the
  // answer can be a hundred times as large.
  struct Tokens {
    std::vector<int32_t> ids;
    std::vector<std::string> tokens;
  };
  absl::StatusOr<std::vector<Tokens>> Tokenize(const std::string& model,
                                               const std::vector<std::string>& texts,
                                               bool add_special_tokens,
                                               const std::function<absl::Status()>& check) const;

  // NotFound; InvalidArgument (field named; min > max; default_tau or a layer's tau outside the
  // bounds, which are never adapted to one another); FailedPrecondition for a model without
  // experts; Aborted with both revisions if if_revision is another one; what the state file's write
  // returns (then nothing is changed). A change without any field is none: it answers what is in
  // force.
  absl::StatusOr<TauAnswer> SetTau(const std::string& model, const TauChange& change);
  absl::StatusOr<TauAnswer> GetTau(const std::string& model) const;

  Scheduler::Load load(const std::string& model) const;
  // Refuses new calls with Unavailable and waits for the others. True if all were answered.
  bool Drain(std::chrono::steady_clock::time_point deadline);

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_ENGINE_H_
