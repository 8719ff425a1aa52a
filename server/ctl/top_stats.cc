#include "server/ctl/top_stats.h"

#include <algorithm>
#include <numeric>

namespace dimmer::ctl {
namespace {

// Counters do not go back; a reloaded model's start again.
double Rise(uint64_t before, uint64_t now) { return double(now >= before ? now - before : now); }

std::vector<uint64_t> Rises(const v1::Histogram& before, const v1::Histogram& now) {
  std::vector<uint64_t> counts(now.counts().begin(), now.counts().end());
  for (int i = 0; i < std::min(before.counts_size(), now.counts_size()); ++i) {
    counts[size_t(i)] = uint64_t(Rise(before.counts(i), now.counts(i)));
  }
  return counts;
}

ModelWindow Window(const v1::ModelStats& before, const v1::ModelStats& now, double seconds) {
  ModelWindow window{.now = now, .seconds = seconds};
  const double per_second = seconds > 0 ? 1 / seconds : 0;
  for (const auto& [code, count] : now.requests()) {
    const auto old = before.requests().find(code);
    const double calls = Rise(old == before.requests().end() ? 0 : old->second, count);
    (code == "OK" ? window.requests : window.errors) += calls * per_second;
  }
  window.requests += window.errors;
  const double flops = Rise(before.flops(), now.flops());
  const double dense = Rise(before.dense_flops(), now.dense_flops());
  const double answers = Rise(before.answers(), now.answers());
  window.texts = Rise(before.texts(), now.texts()) * per_second;
  window.tokens = Rise(before.tokens(), now.tokens()) * per_second;
  window.flops = flops * per_second;
  window.dense_flops = dense * per_second;
  if (answers > 0) window.tau = std::max(0.0, now.tau_sum() - before.tau_sum()) / answers;
  if (dense > 0) window.saved = 1 - flops / dense;
  const std::vector<double> bounds(now.request_seconds().upper_bounds().begin(),
                                   now.request_seconds().upper_bounds().end());
  const std::vector<uint64_t> counts = Rises(before.request_seconds(), now.request_seconds());
  window.p50 = Quantile(0.5, bounds, counts);
  window.p95 = Quantile(0.95, bounds, counts);
  window.p99 = Quantile(0.99, bounds, counts);
  for (int i = 0; i < now.modules_size(); ++i) {
    const v1::ModuleStats& to = now.modules(i);
    const v1::ModuleStats from = i < before.modules_size() ? before.modules(i) : v1::ModuleStats();
    const double tokens = Rise(from.tokens(), to.tokens());
    ModelWindow::Module module{
        .layer = to.layer(), .module = to.module(), .experts = to.experts(), .run = {}};
    if (tokens > 0) module.run = Rise(from.expert_runs(), to.expert_runs()) / tokens;
    window.modules.push_back(std::move(module));
  }
  return window;
}

Json Optional(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json ModelJson(const ModelWindow& window) {
  Json modules = Json::array();
  for (const ModelWindow::Module& module : window.modules) {
    modules.push_back({{"layer", module.layer},
                       {"module", module.module},
                       {"experts", module.experts},
                       {"experts_run", Optional(module.run)}});
  }
  return {{"model", window.now.model()},
          {"version", window.now.version()},
          {"ready", window.now.ready()},
          {"requests_per_second", window.requests},
          {"errors_per_second", window.errors},
          {"texts_per_second", window.texts},
          {"tokens_per_second", window.tokens},
          {"tau", Optional(window.tau)},
          {"settings", ToJson(window.now.settings())},
          {"flops_per_second", window.flops},
          {"dense_flops_per_second", window.dense_flops},
          {"flops_saved", Optional(window.saved)},
          {"queued", window.now.queued()},
          {"running", window.now.running()},
          {"latency_seconds",
           {{"p50", Optional(window.p50)},
            {"p95", Optional(window.p95)},
            {"p99", Optional(window.p99)}}},
          {"layers", std::move(modules)}};
}

}  // namespace

std::optional<double> Quantile(double rank, const std::vector<double>& bounds,
                               const std::vector<uint64_t>& counts) {
  const double all = double(std::accumulate(counts.begin(), counts.end(), uint64_t{0}));
  if (all == 0 || bounds.empty()) return std::nullopt;
  double below = 0;
  for (size_t i = 0; i < std::min(bounds.size(), counts.size()); ++i) {
    const double here = double(counts[i]);
    if (here > 0 && below + here >= rank * all) {
      const double low = i == 0 ? 0 : bounds[i - 1];
      return low + (bounds[i] - low) * (rank * all - below) / here;
    }
    below += here;
  }
  return bounds.back();
}

std::vector<ModelWindow> Windows(const v1::WatchStatsResponse& before,
                                 const v1::WatchStatsResponse& now) {
  const double seconds = now.uptime_seconds() - before.uptime_seconds();
  std::vector<ModelWindow> windows;
  for (const v1::ModelStats& model : now.models()) {
    const auto same = std::find_if(
        before.models().begin(), before.models().end(), [&](const v1::ModelStats& old) {
          return old.model() == model.model() && old.version() == model.version();
        });
    windows.push_back(
        Window(same == before.models().end() ? v1::ModelStats() : *same, model, seconds));
  }
  return windows;
}

Json ToJson(const v1::WatchStatsResponse& now, const std::vector<ModelWindow>& windows) {
  Json models = Json::array();
  for (const ModelWindow& window : windows) models.push_back(ModelJson(window));
  return {{"time", ToJson(now.time())},
          {"uptime_seconds", now.uptime_seconds()},
          {"seconds", windows.empty() ? 0.0 : windows.front().seconds},
          {"models", std::move(models)}};
}

}  // namespace dimmer::ctl
