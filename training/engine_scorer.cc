#include "training/engine_scorer.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "engine/layers/kv_cache.h"
#include "engine/layers/workspace.h"
#include "engine/models/generation.h"
#include "engine/util/status.h"
#include "engine/util/thread_pool.h"

namespace dimmer {
namespace {

absl::StatusOr<WindowScores> Score(const Model& model,
                                   std::span<const std::vector<int32_t>> windows, double tau) {
  const ModelInfo& info = model.info();
  const size_t modules = info.cost.moe.size();
  size_t pages = 0;
  for (const std::vector<int32_t>& window : windows) pages += KvPool::PagesFor(window.size());
  KvPool pool(info.kv, pages);
  std::vector<Sequence> sequences(windows.size());  // after the pool that their pages are of
  for (size_t i = 0; i < windows.size(); ++i) {
    Sequence& sequence = sequences[i];
    sequence.task = Task::kScoring;
    sequence.ids = windows[i];
    sequence.plan.module_tau.assign(modules, tau);
    std::optional<KvPages> reserved = pool.Reserve(windows[i].size());
    if (!reserved.has_value()) return absl::InternalError("the pool has too few pages");
    sequence.kv = *std::move(reserved);
  }
  ThreadPool alone(1);  // batches run side by side: none is worth sharing
  Workspace workspace;
  StepContext context{.pool = alone, .workspace = workspace};
  std::vector<Sequence*> batch;
  do {
    batch.clear();
    for (Sequence& sequence : sequences) {
      if (!sequence.finished) batch.push_back(&sequence);
    }
    if (!batch.empty()) model.Forward(batch, context);
  } while (!batch.empty());
  WindowScores scores;
  scores.expert_runs.assign(modules, 0);
  for (const Sequence& sequence : sequences) {
    DIMMER_RETURN_IF_ERROR(sequence.status);
    double nats = 0;
    for (const float logprob : sequence.token_logprobs) nats -= logprob;
    scores.nats.push_back(nats);
    scores.tokens += sequence.ids.size() - 1;  // the last id is only predicted
    scores.flops += sequence.usage.flops;
    scores.dense_flops += sequence.usage.dense_flops;
    for (size_t m = 0; m < modules; ++m) {
      scores.expert_runs[m] += sequence.usage.layers[m].expert_runs;
    }
  }
  return scores;
}

}  // namespace

WindowScorer EngineScorer(const Model& model) {
  return [&model](std::span<const std::vector<int32_t>> windows, double tau) {
    return Score(model, windows, tau);
  };
}

}  // namespace dimmer
