#include "engine/engine.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/front_pool.h"
#include "engine/model_table.h"
#include "engine/request_walk.h"
#include "engine/tau_control.h"
#include "engine/text_sink.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

using Clock = std::chrono::steady_clock;
using Done = std::function<void(Response)>;

// A thread tokenizes a million tokens a second, some fifty times what a core computes: few are
// enough, but two, so that one long text does not hold everybody up.
uint32_t FrontThreads(uint32_t compute_threads) { return std::max(2u, compute_threads / 8); }

uint32_t ComputeThreads(const EngineOptions& options) {
  return options.threads > 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
}

SchedulerOptions SchedulerOptionsFrom(const EngineOptions& options) {
  const uint32_t threads = ComputeThreads(options);
  const uint32_t workers =
      options.workers > 0 ? std::min(options.workers, threads) : std::max(1u, threads / 4);
  return {.workers = workers,
          .threads_per_worker = threads / workers,
          .max_queue_size = options.max_queue_size,
          .reader_timeout = options.reader_timeout};
}

}  // namespace

// A request in flight. The mutex orders Cancel() with the hand-over to the scheduler and with the
// answer: the scheduler outlives every ticket that still has its call.
struct Engine::Ticket::State {
  std::mutex mutex;
  std::atomic<bool> cancelled = false;
  Scheduler* scheduler = nullptr;  // valid while `call` is set
  std::shared_ptr<Call> call;      // from the hand-over to the answer
  std::shared_ptr<TextSink> sink;  // the same, of a generation

  void Forget() {
    std::shared_ptr<TextSink> last;  // what its on_piece holds may hold a ticket
    std::lock_guard lock(mutex);
    call = nullptr;
    last = std::move(sink);
  }
};

void Engine::Ticket::Cancel() {
  if (state_ == nullptr) return;
  state_->cancelled = true;
  std::lock_guard lock(state_->mutex);
  if (state_->call != nullptr) state_->scheduler->Cancel(state_->call);
}

void Engine::Ticket::Touch() {
  if (state_ == nullptr) return;
  std::lock_guard lock(state_->mutex);
  if (state_->sink != nullptr) state_->sink->Touch();
}

void Engine::Ticket::Resume() {
  if (state_ == nullptr) return;
  std::lock_guard lock(state_->mutex);
  if (state_->sink == nullptr) return;
  state_->sink->Resume();
  state_->scheduler->Wake();
}

class Engine::Impl {
 public:
  Impl(EngineOptions options, TauStore store, TauRecords records, SchedulerObserver* observer)
      : options_(std::move(options)),
        tau_(std::move(store), std::move(records)),
        scheduler_(SchedulerOptionsFrom(options_), observer),
        front_(FrontThreads(ComputeThreads(options_)), options_.max_queue_size) {}

  absl::Status Load(const RepositoryEntry& entry) {
    const Clock::time_point start = Clock::now();
    const auto seconds = [&] {
      return std::chrono::duration<double>(Clock::now() - start).count();
    };
    absl::Status status = LoadAndServe(entry, seconds);
    if (!status.ok()) models_.Fail(entry, status, seconds());
    return status;
  }

  Ticket Submit(Request request, Done done) {
    auto state = std::make_shared<Ticket::State>();
    const size_t weight = std::max<size_t>(SequenceCount(request), 1);
    // Shared, because a std::function must be copyable.
    auto walk =
        std::make_shared<Walk>(Walk{std::move(request), std::move(done), state, Clock::now()});
    absl::Status added = CheckTextSizes(walk->request);
    if (added.ok()) {
      added = front_.Add(weight, [this, walk](bool closing) { Start(walk, closing); });
    }
    if (!added.ok()) {
      walk->request = {.model = std::move(walk->request.model)};  // a refusal holds no texts
      front_.Post([walk, added] { Refuse(*walk, nullptr, added); });
    }
    return Ticket(std::move(state));
  }

  bool Drain(Clock::time_point deadline) {
    return front_.Drain(deadline) && scheduler_.Drain(deadline);
  }

  const ModelTable& models() const { return models_; }
  TauControl& tau() { return tau_; }
  const Scheduler& scheduler() const { return scheduler_; }

 private:
  struct Walk {
    Request request;
    Done done;
    std::shared_ptr<Ticket::State> state;
    Clock::time_point submitted;
  };

  template <typename Seconds>
  absl::Status LoadAndServe(const RepositoryEntry& entry, Seconds seconds) try {
    DIMMER_ASSIGN_OR_RETURN(const auto loaded, LoadFromDisk(entry));
    DIMMER_ASSIGN_OR_RETURN(const TauSettings initial,
                            InitialTau(entry.serving, loaded->info().gate));
    tau_.Register(entry.model, initial, loaded->info());
    models_.Serve(loaded, seconds());
    return absl::OkStatus();
  } catch (const std::exception& error) {  // out of memory
    return absl::ResourceExhaustedError(fmt::format("{}: {}", entry.directory, error.what()));
  }

  static absl::Status StillWanted(const Walk& walk) {
    if (walk.state->cancelled) return RequestCancelled();
    return walk.request.deadline <= Clock::now() ? RequestTimedOut() : absl::OkStatus();
  }

  // Without the model: it was not found, or not looked for.
  static void Refuse(const Walk& walk, const LoadedModel* model, const absl::Status& status) {
    Response response{.status = status, .model = {}, .version = {}, .results = {}};
    if (model != nullptr) {
      response.model = model->name();
      response.version = model->served->version;
    }
    walk.done(std::move(response));
  }

  // On a front thread: from the request to the scheduler.
  void Start(const std::shared_ptr<Walk>& walk, bool closing) {
    if (closing) {
      return Refuse(*walk, nullptr, absl::UnavailableError("GRPC server is shutting down"));
    }
    const auto model = models_.Find(walk->request.model, walk->request.version);
    if (!model.ok()) return Refuse(*walk, nullptr, model.status());
    absl::StatusOr<Prepared> prepared = PrepareWalk(*walk, **model);
    const absl::Status status =
        prepared.ok() ? HandOver(walk, *model, *std::move(prepared)) : prepared.status();
    if (!status.ok()) Refuse(*walk, model->get(), status);
  }

  absl::StatusOr<Prepared> PrepareWalk(const Walk& walk, const LoadedModel& model) const try {
    DIMMER_RETURN_IF_ERROR(StillWanted(walk));
    DIMMER_RETURN_IF_ERROR(CheckRequest(walk.request, model));
    DIMMER_ASSIGN_OR_RETURN(const TauSettings settings, tau_.Settings(model.name()));
    return Prepare(walk.request, model, settings, [&] { return StillWanted(walk); });
  } catch (const std::exception& error) {  // out of memory
    return absl::InternalError(fmt::format("the request was not prepared: {}", error.what()));
  }

  static Response Answer(const LoadedModel& model, std::span<Sequence> sequences,
                         const std::vector<bool>& truncated, TextSink* sink) try {
    Response response = MakeResponse(model, sequences, truncated);
    if (sink == nullptr) return response;
    Result failed;  // the reader still gets what was held back
    const bool ok = response.status.ok();
    const absl::Status read = sink->Finish(ok ? response.results.front() : failed);
    if (ok && !read.ok()) {
      response.status = read;
      response.results.clear();
    }
    return response;
  } catch (const std::exception& error) {  // out of memory
    return {.status = absl::InternalError(fmt::format("no answer was made: {}", error.what())),
            .model = model.name(),
            .version = model.served->version,
            .results = {}};
  }

  static std::shared_ptr<TextSink> MakeSink(Walk& walk, const LoadedModel& model, Call& call) {
    Sequence& sequence = call.sequences.front();
    std::vector<std::string> stops;
    if (walk.request.generate) stops = std::move(walk.request.generate->stop);
    auto sink =
        std::make_shared<TextSink>(model.tokenizer, sequence.ids.back(), stops,
                                   std::exchange(walk.request.on_piece, nullptr), walk.submitted);
    sequence.generation->sink = sink.get();
    return sink;
  }

  absl::Status HandOver(const std::shared_ptr<Walk>& walk,
                        const std::shared_ptr<const LoadedModel>& model, Prepared prepared) {
    walk->request.texts = {};  // not needed any more
    walk->request.text_pairs = {};
    walk->request.token_ids = {};
    auto call = std::make_shared<Call>();
    call->model = model->served;
    call->sequences = std::move(prepared.sequences);
    call->deadline = walk->request.deadline;
    std::shared_ptr<TextSink> sink;
    if (walk->request.task == Task::kGeneration) sink = MakeSink(*walk, *model, *call);
    call->done = [walk, model, sink, truncated = std::move(prepared.truncated)](Call& call) {
      walk->state->Forget();
      walk->done(Answer(*model, call.sequences, truncated, sink.get()));
    };
    {
      std::lock_guard lock(walk->state->mutex);
      walk->state->scheduler = &scheduler_;
      walk->state->call = call;
      walk->state->sink = sink;
      // Whoever cancels from now on finds the call; whoever did before has set the flag.
      if (walk->state->cancelled) call->cancelled = true;
    }
    absl::Status status = scheduler_.Submit(call);
    if (!status.ok()) walk->state->Forget();
    return status;
  }

  const EngineOptions options_;
  ModelTable models_;
  TauControl tau_;
  Scheduler scheduler_;
  FrontPool front_;  // the last: its threads use all of the above
};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Engine::~Engine() = default;

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(EngineOptions options,
                                                       SchedulerObserver* observer) {
  if (options.max_queue_size == 0) {
    return absl::InvalidArgumentError("max_queue_size: found 0, expected a positive number");
  }
  TauStore store(options.state_dir);
  DIMMER_ASSIGN_OR_RETURN(TauRecords records, store.Read());
  try {
    return std::unique_ptr<Engine>(new Engine(std::make_unique<Impl>(
        std::move(options), std::move(store), std::move(records), observer)));
  } catch (const std::exception& error) {  // no more threads
    return absl::ResourceExhaustedError(
        fmt::format("the engine could not start: {}", error.what()));
  }
}

absl::Status Engine::Load(const RepositoryEntry& entry) { return impl_->Load(entry); }

std::vector<ModelStatus> Engine::Models() const { return impl_->models().All(); }

absl::StatusOr<std::shared_ptr<const ServedModel>> Engine::Find(const std::string& model,
                                                                const std::string& version) const {
  DIMMER_ASSIGN_OR_RETURN(const auto loaded, impl_->models().Find(model, version));
  return loaded->served;
}

Engine::Ticket Engine::Submit(Request request, std::function<void(Response)> done) {
  return impl_->Submit(std::move(request), std::move(done));
}

absl::StatusOr<std::vector<Engine::Tokens>> Engine::Tokenize(
    const std::string& model, const std::vector<std::string>& texts, bool add_special_tokens,
    const std::function<absl::Status()>& check) const {
  DIMMER_ASSIGN_OR_RETURN(const auto loaded, impl_->models().Find(model, ""));
  if (loaded->tokenizer == nullptr) {
    return absl::FailedPreconditionError(fmt::format("model {} has no tokenizer", model));
  }
  size_t bytes = 0;
  for (const std::string& text : texts) bytes += text.size();
  if (bytes > kMaxTextBytes) {
    return absl::InvalidArgumentError(fmt::format(
        "texts have {} bytes in all, at most {} are taken in one call", bytes, kMaxTextBytes));
  }
  std::vector<Tokens> results(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    DIMMER_RETURN_IF_ERROR(check());
    absl::StatusOr<Encoding> encoding = loaded->tokenizer->Encode(
        texts[i], std::nullopt, {.add_special_tokens = add_special_tokens});
    if (!encoding.ok()) return Annotate(encoding.status(), fmt::format("text {}", i));
    results[i].ids = std::move(encoding->ids);
    results[i].tokens.reserve(results[i].ids.size());
    for (const int32_t id : results[i].ids) {
      results[i].tokens.emplace_back(loaded->tokenizer->TokenOf(id));
    }
  }
  return results;
}

absl::StatusOr<TauAnswer> Engine::SetTau(const std::string& model, const TauChange& change) {
  return impl_->tau().Set(model, change);
}

absl::StatusOr<TauAnswer> Engine::GetTau(const std::string& model) const {
  return impl_->tau().Get(model);
}

Scheduler::Load Engine::load(const std::string& model) const {
  return impl_->scheduler().load(model);
}

bool Engine::Drain(std::chrono::steady_clock::time_point deadline) {
  return impl_->Drain(deadline);
}

}  // namespace dimmer
