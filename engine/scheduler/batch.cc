#include "engine/scheduler/batch.h"

#include <algorithm>
#include <exception>

#include "engine/layers/kv_cache.h"
#include "engine/layers/workspace.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

// Of a step: enough rows for the kernels' full speed, and few enough that running streams hardly
// notice a long prompt.
constexpr uint32_t kPromptTokens = 4 * kPromptChunk;

StepStats EmptyStats(const ModelInfo& info) {
  StepStats stats;
  stats.modules.resize(info.cost.moe.size());
  for (size_t i = 0; i < stats.modules.size(); ++i) {
    stats.modules[i].expert_tokens.resize(info.cost.moe[i].experts);
    stats.modules[i].experts_per_token.resize(info.cost.moe[i].experts + size_t{1});
  }
  return stats;
}

void Step(const Batch& batch, ThreadPool& pool, Workspace& workspace, StepStats& stats) {
  absl::Status failure;
  try {
    stats = EmptyStats(batch.model->model->info());
    StepContext context{
        .pool = pool,
        .workspace = workspace,
        .stats = &stats,
        .max_prompt_tokens = std::min(kPromptTokens, batch.model->limits.max_batch_tokens)};
    std::vector<Sequence*> sequences;
    sequences.reserve(batch.items.size());
    for (const Batch::Item& item : batch.items) {
      if (item.runs) sequences.push_back(item.sequence);
    }
    batch.model->model->Forward(sequences, context);
    return;
  } catch (const std::exception& error) {  // out of memory, in practice
    failure = absl::InternalError(
        fmt::format("model {}: the forward pass failed: {}", batch.model->name, error.what()));
  } catch (...) {
    failure =
        absl::InternalError(fmt::format("model {}: the forward pass failed", batch.model->name));
  }
  for (const Batch::Item& item : batch.items) {
    if (item.runs && !item.sequence->finished) Stop(*item.sequence, failure);
  }
}

bool IsBehind(const Sequence& sequence) {
  const Generation* generation = sequence.generation.get();
  return generation != nullptr && generation->sink != nullptr && !generation->sink->ready();
}

// When a reader that is behind is given up, if it takes nothing more.
std::chrono::steady_clock::time_point GivenUp(const Batch::Item& item,
                                              std::chrono::nanoseconds reader_timeout) {
  using TimePoint = std::chrono::steady_clock::time_point;
  if (!item.behind_since) return TimePoint::max();
  const TimePoint since =
      std::max(*item.behind_since, item.sequence->generation->sink->last_read());
  return reader_timeout < TimePoint::max() - since ? since + reader_timeout : TimePoint::max();
}

}  // namespace

uint64_t Microseconds(std::chrono::nanoseconds time) {
  return std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::microseconds>(time).count());
}

size_t BatchTokens(const ServedModel& model, const Sequence& sequence) {
  return model.kv == nullptr ? sequence.ids.size() : 0;
}

bool Fits(const Batch& batch, const ServedModel& model, const Sequence& sequence) {
  const auto busy = std::count_if(batch.items.begin(), batch.items.end(),
                                  [](const Batch::Item& item) { return !item.behind_since; });
  return busy == 0 ||
         (static_cast<size_t>(busy) < model.limits.max_batch_size &&
          batch.tokens + BatchTokens(model, sequence) <= model.limits.max_batch_tokens);
}

size_t KvTokens(const Sequence& sequence) {
  const size_t more = sequence.generation == nullptr ? 0 : sequence.generation->max_new_tokens;
  return sequence.ids.size() + more - 1;
}

absl::Status CheckPages(const Call& call) {
  const KvPool* pool = call.model->kv.get();
  if (pool == nullptr) return absl::OkStatus();
  for (const Sequence& sequence : call.sequences) {
    const size_t tokens = KvTokens(sequence);
    if (KvPool::PagesFor(tokens) <= pool->pages()) continue;
    return absl::InvalidArgumentError(
        fmt::format("the keys and values of {} tokens need {} pages, the model's cache has {} (of "
                    "{} tokens each); ask for fewer tokens",
                    tokens, KvPool::PagesFor(tokens), pool->pages(), kKvPageTokens));
  }
  return absl::OkStatus();
}

bool MarkRunnable(Batch& batch, std::chrono::steady_clock::time_point now) {
  // Whoever had to wait although its reader is there goes first.
  std::stable_partition(batch.items.begin(), batch.items.end(),
                        [](const Batch::Item& item) { return !item.runs && !item.behind_since; });
  size_t running = 0;
  for (Batch::Item& item : batch.items) {
    if (!IsBehind(*item.sequence)) {
      item.behind_since.reset();
    } else if (!item.behind_since) {
      item.behind_since = now;
    }
    item.runs = !item.behind_since && running < batch.model->limits.max_batch_size;
    running += item.runs ? 1 : 0;
  }
  return running > 0;
}

void EndStopped(Batch& batch, std::chrono::steady_clock::time_point now,
                std::chrono::nanoseconds reader_timeout, bool ending) {
  for (Batch::Item& item : batch.items) {
    Sequence& sequence = *item.sequence;
    if (sequence.finished) continue;
    if (sequence.cancelled->load(std::memory_order_relaxed)) {
      Stop(sequence, RequestCancelled());
    } else if (sequence.deadline <= now) {
      Stop(sequence, RequestTimedOut());
    } else if (ending && sequence.task == Task::kGeneration) {
      Stop(sequence, absl::UnavailableError("GRPC server is shutting down"));
    } else if (GivenUp(item, reader_timeout) <= now && IsBehind(sequence)) {
      Stop(sequence, absl::AbortedError(fmt::format(
                         "the text was not read for {:g} s; what waits for its memory goes on",
                         std::chrono::duration<double>(reader_timeout).count())));
    }
  }
}

std::chrono::steady_clock::time_point EarliestEnd(const Batch& batch,
                                                  std::chrono::nanoseconds reader_timeout) {
  auto earliest = std::chrono::steady_clock::time_point::max();
  for (const Batch::Item& item : batch.items) {
    earliest = std::min({earliest, item.sequence->deadline, GivenUp(item, reader_timeout)});
  }
  return earliest;
}

void Advance(Batch& batch, ThreadPool& pool, Workspace& workspace, SchedulerObserver* observer) {
  using Clock = std::chrono::steady_clock;
  StepStats stats;
  const Clock::time_point start = Clock::now();
  Step(batch, pool, workspace, stats);
  const std::chrono::nanoseconds compute = Clock::now() - start;
  for (Batch::Item& item : batch.items) {
    if (item.runs) item.compute += compute;
    Usage& usage = item.sequence->usage;
    usage.queue_us = Microseconds(item.started - item.job->call->enqueued);
    usage.compute_us = Microseconds(item.compute);
  }
  if (observer == nullptr) return;
  try {
    observer->OnStep(batch.model->name, batch.model->version, stats, compute);
  } catch (...) {
    // Out of memory: one step is missing in the metrics, which must not cost the worker.
  }
}

}  // namespace dimmer
