// From two messages of WatchStats to what happened between them.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_CTL_TOP_STATS_H_
#define DIMMER_SERVER_CTL_TOP_STATS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dimmer/v1/admin.pb.h"
#include "server/ctl/json.h"

namespace dimmer::ctl {

// One model over one interval. What no call has told about is unset.
struct ModelWindow {
  v1::ModelStats now;
  double seconds = 0;
  // Per second.
  double requests = 0, errors = 0, texts = 0, tokens = 0, flops = 0, dense_flops = 0;
  std::optional<double> tau;            // effective, mean over answers
  std::optional<double> saved;          // share of the dense FLOPs that did not run
  std::optional<double> p50, p95, p99;  // seconds, estimated within the histogram's buckets
  struct Module {
    uint32_t layer = 0;
    std::string module;
    uint32_t experts = 0;
    std::optional<double> run;  // mean per token
  };
  std::vector<Module> modules;
};

// `before` may lack models that are new, which then count from zero.
std::vector<ModelWindow> Windows(const v1::WatchStatsResponse& before,
                                 const v1::WatchStatsResponse& now);

// The value below which the share `rank` of the counts lies, linear within a bucket, as
// Prometheus' histogram_quantile; beyond the last bound, that bound. Unset without counts.
std::optional<double> Quantile(double rank, const std::vector<double>& bounds,
                               const std::vector<uint64_t>& counts);

// One line of `top --json`.
Json ToJson(const v1::WatchStatsResponse& now, const std::vector<ModelWindow>& windows);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_TOP_STATS_H_
