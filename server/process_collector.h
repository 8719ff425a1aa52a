// The process_* metrics that Prometheus' client libraries agree on, from /proc.
//
// Thread safety: Collect() may be called from any thread.
#ifndef DIMMER_SERVER_PROCESS_COLLECTOR_H_
#define DIMMER_SERVER_PROCESS_COLLECTOR_H_

#include <prometheus/collectable.h>

#include <vector>

namespace dimmer {

class ProcessCollector : public prometheus::Collectable {
 public:
  // What cannot be read is left out.
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_PROCESS_COLLECTOR_H_
