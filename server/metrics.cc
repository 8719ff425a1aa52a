#include "server/metrics.h"

#include <fmt/format.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <sstream>

#include "server/grpc_status.h"

namespace dimmer {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using prometheus::Labels;
using Buckets = Histogram::BucketBoundaries;

const Buckets kSeconds = {.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05,
                          .1,    .25,    .5,    1,    2.5,   5,    10,  30};
// Per output token: down to what a small model takes.
const Buckets kTokenSeconds = {.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025,
                               .005,   .01,     .025,   .05,   .1,     .25,   .5,   1};
const Buckets kBatchTokens = {1, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
const Buckets kTau = {0, .01, .02, .05, .1, .15, .2, .25, .3, .4, .5, .6, .7, .8, .9, 1};
const Buckets kRatio = {-.5,  -.2,  -.1, -.05, -.02, -.01, -.005, -.002, 0,
                        .002, .005, .01, .02,  .05,  .1,   .2,    .5};

// 1, 2, 3, 4, 6, 8, 12, 16, ... up to all experts of the module.
Buckets ExpertBuckets(uint32_t experts) {
  Buckets bounds;
  for (uint32_t power = 1; power < experts; power *= 2) {
    bounds.push_back(power);
    const uint32_t between = power + power / 2;
    if (power > 1 && between < experts) bounds.push_back(between);
  }
  bounds.push_back(experts);
  return bounds;
}

Family<Counter>& CounterFamily(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

Family<Histogram>& HistogramFamily(prometheus::Registry& registry, const char* name,
                                   const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

// Other calls on a model, such as GetModel, say nothing about how it serves.
bool RunsModel(std::string_view rpc) {
  constexpr std::array<std::string_view, 5> kRunning = {"Classify", "Embed", "Generate",
                                                        "ModelInfer", "ModelStreamInfer"};
  return std::find(kRunning.begin(), kRunning.end(), rpc) != kRunning.end();
}

std::string_view LabelOf(const prometheus::ClientMetric& metric, std::string_view name) {
  for (const prometheus::ClientMetric::Label& label : metric.label) {
    if (label.name == name) return label.value;
  }
  return "";
}

uint64_t ToCount(double value) { return static_cast<uint64_t>(std::llround(value)); }

// `from` has the buckets of kSeconds, cumulative, and one for +Inf.
void AddHistogram(const prometheus::ClientMetric::Histogram& from, ModelCounts* to) {
  uint64_t below = 0;
  for (size_t i = 0; i < std::min(from.bucket.size(), to->seconds_counts.size()); ++i) {
    const uint64_t up_to_here = from.bucket[i].cumulative_count;
    to->seconds_counts[i] += up_to_here - below;
    below = up_to_here;
  }
  to->seconds_sum += from.sample_sum;
}

// Why a call was turned away; "" where it was not.
const char* RejectReason(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kResourceExhausted:
      return "queue_full";
    case absl::StatusCode::kUnavailable:
      return "unavailable";
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline";
    case absl::StatusCode::kFailedPrecondition:
      return "budget_floor";
    default:
      return "";
  }
}

// A text that ends by itself leaves of its budget what the rest would have cost.
bool EndedEarly(const Response& response) {
  const FinishReason reason = response.results.front().finish_reason;
  return reason == FinishReason::kStop || reason == FinishReason::kEndOfText;
}

}  // namespace

struct Metrics::Families {
  explicit Families(prometheus::Registry& r)
      : requests(CounterFamily(r, "dimmer_requests_total", "Calls that ended, by RPC and status")),
        rejected(
            CounterFamily(r, "dimmer_rejected_requests_total",
                          "Calls turned away: queue_full, unavailable, deadline, budget_floor")),
        degraded(CounterFamily(r, "dimmer_degraded_requests_total",
                               "Calls answered with less compute because of load")),
        texts(CounterFamily(r, "dimmer_texts_total", "Texts of answered calls")),
        tokens(CounterFamily(r, "dimmer_tokens_total",
                             "Tokens that ran, also of calls that failed on the way")),
        flops(CounterFamily(r, "dimmer_flops_total",
                            "FLOPs run, also for calls that failed on the way")),
        dense_flops(CounterFamily(r, "dimmer_dense_flops_total",
                                  "FLOPs that tau 0 would have run for the same tokens")),
        non_finite(CounterFamily(r, "dimmer_non_finite_scores_total",
                                 "Tokens whose router gave a non-finite score; all experts ran")),
        expert_tokens(
            CounterFamily(r, "dimmer_expert_tokens_total", "Tokens that ran each expert")),
        request_seconds(HistogramFamily(r, "dimmer_request_duration_seconds",
                                        "From a call's arrival to its answer")),
        queue_seconds(HistogramFamily(r, "dimmer_queue_duration_seconds",
                                      "Longest wait of an answered call's texts")),
        compute_seconds(HistogramFamily(r, "dimmer_compute_duration_seconds",
                                        "Longest time in the model of an answered call's texts")),
        first_token_seconds(
            HistogramFamily(r, "dimmer_time_to_first_token_seconds",
                            "From an answered generation's arrival to its first token")),
        output_token_seconds(
            HistogramFamily(r, "dimmer_time_per_output_token_seconds",
                            "Mean time from token to token of an answered generation")),
        batch_tokens(HistogramFamily(r, "dimmer_batch_tokens", "Tokens computed together")),
        request_tau(
            HistogramFamily(r, "dimmer_request_tau", "Mean effective tau of answered calls")),
        budget_error(HistogramFamily(
            r, "dimmer_budget_error_ratio",
            "FLOPs run over FLOPs asked for, minus 1; by text for flop_fraction, by call for "
            "max_flops; clamped budgets left out")),
        experts_run(HistogramFamily(r, "dimmer_experts_run", "Experts run, per token")) {}

  Family<Counter>&requests, &rejected, &degraded, &texts, &tokens, &flops, &dense_flops,
      &non_finite, &expert_tokens;
  Family<Histogram>&request_seconds, &queue_seconds, &compute_seconds, &first_token_seconds,
      &output_token_seconds, &batch_tokens, &request_tau, &budget_error, &experts_run;
};

struct Metrics::ModuleSeries {
  Labels labels;
  uint32_t experts = 0;
  std::vector<size_t> bucket_of;  // [experts + 1] experts run -> bucket
  size_t buckets = 0;             // with the one for +Inf
  Histogram* experts_run = nullptr;
  std::vector<Counter*> expert_tokens;  // [experts]; empty: not exported
};

struct Metrics::ModelSeries {
  Labels labels;
  Counter *texts, *prompt_tokens, *output_tokens, *flops, *dense_flops, *non_finite, *degraded;
  Histogram *queue_seconds, *compute_seconds, *batch_tokens, *request_tau, *budget_error;
  Histogram *first_token_seconds = nullptr, *output_token_seconds = nullptr;  // of generators
  std::vector<ModuleSeries> modules;                                          // as CostModel::moe
};

Metrics::Metrics(PerExpert per_expert)
    : per_expert_(per_expert), families_(std::make_unique<Families>(registry_)) {}

Metrics::~Metrics() = default;

namespace {

Labels With(Labels labels, const std::string& name, const std::string& value) {
  labels[name] = value;
  return labels;
}

}  // namespace

void Metrics::AddModel(const ServedModel& model) {
  const std::unique_lock lock(mutex_);
  std::unique_ptr<ModelSeries>& slot = models_[{model.name, model.version}];
  if (slot != nullptr) return;
  slot = std::make_unique<ModelSeries>();
  ModelSeries& series = *slot;
  Families& f = *families_;
  series.labels = {{"model", model.name}, {"version", model.version}};
  series.texts = &f.texts.Add(series.labels);
  series.prompt_tokens = &f.tokens.Add(With(series.labels, "kind", "prompt"));
  series.output_tokens = &f.tokens.Add(With(series.labels, "kind", "output"));
  series.flops = &f.flops.Add(series.labels);
  series.dense_flops = &f.dense_flops.Add(series.labels);
  series.non_finite = &f.non_finite.Add(series.labels);
  series.degraded = &f.degraded.Add(series.labels);
  series.queue_seconds = &f.queue_seconds.Add(series.labels, kSeconds);
  series.compute_seconds = &f.compute_seconds.Add(series.labels, kSeconds);
  series.batch_tokens = &f.batch_tokens.Add(series.labels, kBatchTokens);
  series.request_tau = &f.request_tau.Add(series.labels, kTau);
  series.budget_error = &f.budget_error.Add(series.labels, kRatio);
  const std::vector<Task>& tasks = model.model->info().tasks;
  if (std::find(tasks.begin(), tasks.end(), Task::kGeneration) != tasks.end()) {
    series.first_token_seconds = &f.first_token_seconds.Add(series.labels, kSeconds);
    series.output_token_seconds = &f.output_token_seconds.Add(series.labels, kTokenSeconds);
  }
  for (const MoeCost& moe : model.model->info().cost.moe) {
    ModuleSeries module;
    module.labels = With(With(series.labels, "layer", std::to_string(moe.layer)), "module",
                         std::string(ModuleName(moe.module)));
    module.experts = moe.experts;
    const Buckets bounds = ExpertBuckets(moe.experts);
    module.buckets = bounds.size() + 1;
    for (uint32_t run = 0; run <= moe.experts; ++run) {
      module.bucket_of.push_back(static_cast<size_t>(
          std::lower_bound(bounds.begin(), bounds.end(), double(run)) - bounds.begin()));
    }
    module.experts_run = &f.experts_run.Add(module.labels, bounds);
    series.modules.push_back(std::move(module));
  }
  AddExpertSeries();
}

// Gives every module its per-expert counters, or takes them away from all where they have become
// too many. Under the exclusive lock.
void Metrics::AddExpertSeries() {
  size_t total = 0;
  for (const auto& [key, series] : models_) {
    for (const ModuleSeries& module : series->modules) total += module.experts;
  }
  const bool wanted = per_expert_ == PerExpert::kOn ||
                      (per_expert_ == PerExpert::kAuto && total < kMaxExpertSeries);
  for (const auto& [key, series] : models_) {
    for (ModuleSeries& module : series->modules) {
      if (!wanted) {
        for (Counter* counter : module.expert_tokens) families_->expert_tokens.Remove(counter);
        module.expert_tokens.clear();
      } else if (module.expert_tokens.empty()) {
        for (uint32_t expert = 0; expert < module.experts; ++expert) {
          module.expert_tokens.push_back(
              &families_->expert_tokens.Add(With(module.labels, "expert", std::to_string(expert))));
        }
      }
    }
  }
}

void Metrics::AddCollectable(const prometheus::Collectable* collectable) {
  const std::unique_lock lock(mutex_);
  collectables_.push_back(collectable);
}

Metrics::ModelSeries* Metrics::Find(const std::string& model, const std::string& version) const {
  const auto found = models_.find({model, version});
  return found == models_.end() ? nullptr : found->second.get();
}

void Metrics::OnStep(const std::string& model, const std::string& version, const StepStats& stats,
                     std::chrono::nanoseconds /*compute*/) {
  const std::shared_lock lock(mutex_);
  ModelSeries* series = Find(model, version);
  if (series == nullptr) return;
  series->batch_tokens->Observe(double(stats.tokens));
  const size_t modules = std::min(stats.modules.size(), series->modules.size());
  for (size_t m = 0; m < modules; ++m) {
    const ModuleStats& from = stats.modules[m];
    ModuleSeries& to = series->modules[m];
    std::vector<double> increments(to.buckets, 0.0);
    double runs = 0;
    const size_t counts = std::min(from.experts_per_token.size(), to.bucket_of.size());
    for (size_t run = 0; run < counts; ++run) {
      increments[to.bucket_of[run]] += double(from.experts_per_token[run]);
      runs += double(run) * double(from.experts_per_token[run]);
    }
    to.experts_run->ObserveMultiple(increments, runs);
    const size_t experts = std::min(from.expert_tokens.size(), to.expert_tokens.size());
    for (size_t e = 0; e < experts; ++e) {
      if (from.expert_tokens[e] > 0) to.expert_tokens[e]->Increment(double(from.expert_tokens[e]));
    }
    if (from.non_finite_scores > 0) series->non_finite->Increment(double(from.non_finite_scores));
  }
}

void Metrics::OnAnswer(const Budget& asked, const Response& response) {
  const std::shared_lock lock(mutex_);
  ModelSeries* series = Find(response.model, response.version);
  if (series == nullptr) return;
  const Usage& usage = response.usage;
  series->prompt_tokens->Increment(double(usage.prompt_tokens));
  series->output_tokens->Increment(double(usage.output_tokens));
  series->flops->Increment(double(usage.flops));
  series->dense_flops->Increment(double(usage.dense_flops));
  if (!response.status.ok()) return;  // what it used is counted, the rest is of answers
  series->texts->Increment(double(response.results.size()));
  series->queue_seconds->Observe(double(usage.queue_us) * 1e-6);
  series->compute_seconds->Observe(double(usage.compute_us) * 1e-6);
  series->request_tau->Observe(usage.tau);
  if (usage.degraded) series->degraded->Increment();
  for (const Result& result : response.results) {
    const size_t tokens = result.output_ids.size();
    if (series->first_token_seconds == nullptr || tokens == 0) continue;
    series->first_token_seconds->Observe(double(result.first_token_us) * 1e-6);
    if (tokens == 1) continue;  // no time between tokens
    series->output_token_seconds->Observe(double(result.last_token_us - result.first_token_us) *
                                          1e-6 / double(tokens - 1));
  }
  if (asked.kind == Budget::Kind::kFlopFraction) {
    for (const Result& result : response.results) {
      const double limit = asked.value * double(result.usage.dense_flops);
      if (result.usage.budget_clamped || limit <= 0) continue;
      series->budget_error->Observe(double(result.usage.flops) / limit - 1);
    }
  } else if (asked.kind == Budget::Kind::kMaxFlops && !usage.budget_clamped &&
             asked.max_flops < usage.dense_flops &&  // else it limits nothing
             !EndedEarly(response)) {
    series->budget_error->Observe(double(usage.flops) / double(asked.max_flops) - 1);
  }
}

void Metrics::OnRequest(std::string_view rpc, const std::string& model, const std::string& version,
                        absl::StatusCode code, std::chrono::nanoseconds duration) {
  const Labels of_model = {{"model", model}, {"version", version}};
  const Labels of_rpc = With(of_model, "rpc", std::string(rpc));
  families_->requests.Add(With(of_rpc, "code", std::string(CodeName(code)))).Increment();
  families_->request_seconds.Add(of_rpc, kSeconds)
      .Observe(std::chrono::duration<double>(duration).count());
  const std::string reason = RejectReason(code);
  if (!reason.empty()) families_->rejected.Add(With(of_model, "reason", reason)).Increment();
}

ModelCounts Metrics::Counts(const std::string& model, const std::string& version) const {
  ModelCounts counts;
  const auto ours = [&](const prometheus::ClientMetric& metric) {
    return RunsModel(LabelOf(metric, "rpc")) && LabelOf(metric, "model") == model &&
           LabelOf(metric, "version") == version;
  };
  for (const prometheus::MetricFamily& family : families_->requests.Collect()) {
    for (const prometheus::ClientMetric& metric : family.metric) {
      if (ours(metric)) {
        counts.requests[std::string(LabelOf(metric, "code"))] += ToCount(metric.counter.value);
      }
    }
  }
  counts.seconds_bounds = kSeconds;
  counts.seconds_counts.assign(kSeconds.size() + 1, 0);
  for (const prometheus::MetricFamily& family : families_->request_seconds.Collect()) {
    for (const prometheus::ClientMetric& metric : family.metric) {
      if (ours(metric)) AddHistogram(metric.histogram, &counts);
    }
  }
  const std::shared_lock lock(mutex_);
  const ModelSeries* series = Find(model, version);
  if (series == nullptr) return counts;
  counts.texts = ToCount(series->texts->Value());
  counts.tokens = ToCount(series->prompt_tokens->Value() + series->output_tokens->Value());
  counts.flops = ToCount(series->flops->Value());
  counts.dense_flops = ToCount(series->dense_flops->Value());
  const auto tau = series->request_tau->Collect().histogram;
  counts.answers = tau.sample_count;
  counts.tau_sum = tau.sample_sum;
  for (const ModuleSeries& module : series->modules) {
    const auto runs = module.experts_run->Collect().histogram;
    counts.modules.push_back(
        {.tokens = runs.sample_count, .expert_runs = ToCount(runs.sample_sum)});
  }
  return counts;
}

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> families = registry_.Collect();
  {
    const std::shared_lock lock(mutex_);
    for (const prometheus::Collectable* collectable : collectables_) {
      for (prometheus::MetricFamily& family : collectable->Collect()) {
        families.push_back(std::move(family));
      }
    }
  }
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families);
  return text.str();
}

}  // namespace dimmer
