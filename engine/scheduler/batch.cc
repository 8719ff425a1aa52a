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
    for (const Batch::Item& item : batch.items) sequences.push_back(item.sequence);
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
    if (item.sequence->finished) continue;
    item.sequence->status = failure;
    item.sequence->finished = true;
  }
}

}  // namespace

uint64_t Microseconds(std::chrono::nanoseconds time) {
  return std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::microseconds>(time).count());
}

size_t BatchTokens(const ServedModel& model, const Sequence& sequence) {
  return model.kv == nullptr ? sequence.ids.size() : 0;
}

bool Fits(const Batch& batch, const ServedModel& model, const Sequence& sequence) {
  return batch.empty() ||
         (batch.items.size() < model.limits.max_batch_size &&
          batch.tokens + BatchTokens(model, sequence) <= model.limits.max_batch_tokens);
}

size_t KvTokens(const Sequence& sequence) {
  const size_t more = sequence.generation == nullptr ? 0 : sequence.generation->max_new_tokens;
  return sequence.ids.size() + more;
}

absl::Status CheckPages(const Call& call) {
  const KvPool* pool = call.model->kv.get();
  if (pool == nullptr) return absl::OkStatus();
  for (const Sequence& sequence : call.sequences) {
    const size_t tokens = KvTokens(sequence);
    if (KvPool::PagesFor(tokens) <= pool->pages()) continue;
    return absl::InvalidArgumentError(
        fmt::format("{} tokens in all need {} pages of the model's key-value cache, which has {} "
                    "(of {} tokens each); ask for fewer tokens",
                    tokens, KvPool::PagesFor(tokens), pool->pages(), kKvPageTokens));
  }
  return absl::OkStatus();
}

bool MarkRunnable(Batch& batch) {
  bool any = false;
  for (Batch::Item& item : batch.items) {
    const Generation* generation = item.sequence->generation.get();
    item.runs = generation == nullptr || generation->sink == nullptr || generation->sink->ready();
    any |= item.runs;
  }
  return any;
}

void EndStopped(Batch& batch, std::chrono::steady_clock::time_point now, bool ending) {
  for (Batch::Item& item : batch.items) {
    Sequence& sequence = *item.sequence;
    if (sequence.generation == nullptr) continue;
    if (sequence.cancelled->load(std::memory_order_relaxed)) {
      sequence.status = RequestCancelled();
    } else if (sequence.deadline <= now) {
      sequence.status = RequestTimedOut();
    } else if (ending) {
      sequence.status = absl::UnavailableError("GRPC server is shutting down");
    } else {
      continue;
    }
    sequence.finished = true;
  }
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
