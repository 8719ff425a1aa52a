// What Prometheus sees. Names, labels and units: docs/server.md, "Metrics".
//
// Counters and histograms are pushed from here; gauges that mirror the engine's state are read when
// Prometheus asks (engine_collector.h), as is the process (process_collector.h).
//
// Thread safety: all methods may be called from any thread. Per-layer counts arrive gathered by
// batch and are added in bulk.
#ifndef DIMMER_SERVER_METRICS_H_
#define DIMMER_SERVER_METRICS_H_

#include <absl/status/status.h>
#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <chrono>
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace dimmer {

// Series of dimmer_expert_tokens_total, over all models, that are exported unless asked for.
inline constexpr size_t kMaxExpertSeries = 2048;

// What has been counted for one model since AddModel().
struct ModelCounts {
  // Of the calls that run the model, from arrival to answer.
  std::map<std::string, uint64_t> requests;  // by status, "OK"
  std::vector<double> seconds_bounds;        // ascending
  std::vector<uint64_t> seconds_counts;      // [bounds + 1], not cumulative
  double seconds_sum = 0;
  // Of those that were answered with results.
  uint64_t answers = 0, texts = 0, tokens = 0, flops = 0, dense_flops = 0;
  double tau_sum = 0;
  struct Module {
    uint64_t tokens = 0;
    uint64_t expert_runs = 0;
  };
  std::vector<Module> modules;  // as CostModel::moe
};

class Metrics : public SchedulerObserver {
 public:
  enum class PerExpert : uint8_t { kAuto, kOn, kOff };

  explicit Metrics(PerExpert per_expert);
  ~Metrics() override;
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Makes the model's series, so that they exist, at 0, before its first request.
  void AddModel(const ServedModel& model);
  // Adds what is read at every scrape. `collectable` must outlive this.
  void AddCollectable(const prometheus::Collectable* collectable);

  // One batch has run. Steps of models that were not added are not counted.
  void OnStep(const std::string& model, const std::string& version, const StepStats& stats,
              std::chrono::nanoseconds compute) override;
  // A call was answered, with results or not: what it used is counted in both cases.
  void OnAnswer(const Budget& asked, const Response& response);
  // A call has ended, well or not. `model` and `version` are "" unless the server knows them: what
  // clients make up must not become series.
  void OnRequest(std::string_view rpc, const std::string& model, const std::string& version,
                 absl::StatusCode code, std::chrono::nanoseconds duration);

  // All zeros for a model that was not added.
  ModelCounts Counts(const std::string& model, const std::string& version) const;
  // The text exposition format, version 0.0.4.
  std::string Text() const;

 private:
  struct ModuleSeries;
  struct ModelSeries;
  struct Families;
  using ModelKey = std::pair<std::string, std::string>;

  ModelSeries* Find(const std::string& model, const std::string& version) const;
  void AddExpertSeries();

  const PerExpert per_expert_;
  prometheus::Registry registry_;
  std::unique_ptr<Families> families_;
  mutable std::shared_mutex mutex_;
  std::map<ModelKey, std::unique_ptr<ModelSeries>> models_;
  std::vector<const prometheus::Collectable*> collectables_;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_METRICS_H_
