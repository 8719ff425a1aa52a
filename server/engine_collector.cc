#include "server/engine_collector.h"

#include <prometheus/metric_family.h>

#include "engine/layers/kv_cache.h"

namespace dimmer {
namespace {

using prometheus::MetricFamily;

MetricFamily Gauge(const char* name, const char* help) {
  MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = prometheus::MetricType::Gauge;
  return family;
}

void Add(MetricFamily& family, const ModelStatus& model, double value) {
  prometheus::ClientMetric metric;
  metric.label = {{"model", model.name}, {"version", model.version}};
  metric.gauge.value = value;
  family.metric.push_back(std::move(metric));
}

}  // namespace

std::vector<MetricFamily> EngineCollector::Collect() const {
  MetricFamily ready = Gauge("dimmer_model_ready", "1 if the model is served, 0 if it failed");
  MetricFamily load_seconds = Gauge("dimmer_model_load_seconds", "Time to load the model");
  MetricFamily default_tau = Gauge("dimmer_default_tau", "tau of calls without a budget");
  MetricFamily pending = Gauge("dimmer_pending_requests", "Texts that wait");
  MetricFamily running = Gauge("dimmer_running_requests", "Texts in the model");
  MetricFamily pages = Gauge("dimmer_kv_pages", "Pages for keys and values");
  MetricFamily pages_used = Gauge("dimmer_kv_pages_used", "Pages that generations hold");
  for (const ModelStatus& model : engine_->Models()) {
    Add(ready, model, model.ready ? 1 : 0);
    if (!model.ready) continue;
    Add(load_seconds, model, model.load_seconds);
    const Scheduler::Load load = engine_->load(model.name);
    Add(pending, model, double(load.queued));
    Add(running, model, double(load.running));
    if (model.served != nullptr && model.served->kv != nullptr) {
      const KvPool& pool = *model.served->kv;
      Add(pages, model, double(pool.pages()));
      Add(pages_used, model, double(pool.pages() - pool.free_pages()));
    }
    const auto tau = engine_->GetTau(model.name);
    if (tau.ok()) Add(default_tau, model, tau->state.settings.default_tau);
  }
  return {ready, load_seconds, default_tau, pending, running, pages, pages_used};
}

}  // namespace dimmer
