// Gauges that mirror the engine's state, read when Prometheus asks: dimmer_model_ready,
// dimmer_model_load_seconds, dimmer_default_tau, dimmer_pending_requests, dimmer_running_requests,
// dimmer_kv_pages, dimmer_kv_pages_used.
//
// Thread safety: Collect() may be called from any thread.
#ifndef DIMMER_SERVER_ENGINE_COLLECTOR_H_
#define DIMMER_SERVER_ENGINE_COLLECTOR_H_

#include <prometheus/collectable.h>

#include <vector>

#include "engine/engine.h"

namespace dimmer {

class EngineCollector : public prometheus::Collectable {
 public:
  explicit EngineCollector(const Engine* engine) : engine_(engine) {}  // not owned
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Engine* engine_;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_ENGINE_COLLECTOR_H_
