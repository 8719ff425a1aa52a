// The operator's hand on the light: default tau, bounds and per-layer tau of every model, changed
// while it serves.
//
// Thread safety: all methods may be called from any thread. Reading never waits for the disk.
#ifndef DIMMER_ENGINE_TAU_CONTROL_H_
#define DIMMER_ENGINE_TAU_CONTROL_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/tau_store.h"

namespace dimmer {

// The settings of a model before any SetTau: config.yaml's over the package's. A package's default
// outside config.yaml's bounds moves to the nearer one. InvalidArgument: config.yaml contradicts
// itself.
absl::StatusOr<TauSettings> InitialTau(const ServingConfig& serving, const GateSpec& gate);

class TauControl {
 public:
  using Clock = std::function<std::chrono::system_clock::time_point()>;

  // Starts with `records`, what `store` has read, and keeps changes in `store`.
  TauControl(TauStore store, TauRecords records, Clock clock = std::chrono::system_clock::now);

  // Introduces a model, or a new version of it: what was set before stays in force. Settings that
  // no longer fit (an unknown layer, other bounds in config.yaml) are fitted, with a warning.
  void Register(const std::string& model, const TauSettings& initial, const ModelInfo& info);

  // As Engine::SetTau and Engine::GetTau. A change for good sets its fields for good, and ends
  // temporary values of the same fields; one with a ttl replaces the running ttl of all of
  // the model's temporary values, and the answer says where it did so for others. The bounds are
  // never adapted to a default, nor a default to the bounds: what would leave default_tau or a
  // layer's tau outside them is refused. FailedPrecondition: the model has no experts.
  absl::StatusOr<TauAnswer> Set(const std::string& model, const TauChange& change);
  absl::StatusOr<TauAnswer> Get(const std::string& model) const;
  // What budgets are planned with, now.
  absl::StatusOr<TauSettings> Settings(const std::string& model) const;

 private:
  struct Entry {
    TauSettings initial;
    std::vector<MoeCost> modules;
    Calibration calibration;
    TauSettings in_force;  // until the temporary overrides expire, if there are any
    TauSettings lasting;   // from then on
  };
  struct View {
    const TauSettings& settings;
    std::optional<std::chrono::system_clock::time_point> expires;
  };

  static void Resolve(const std::string& model, const TauRecord& record, Entry& entry);
  View Look(const Entry& entry, const TauRecord& record) const;
  TauAnswer Answer(const Entry& entry, const TauRecord& record) const;

  const Clock clock_;
  const TauStore store_;
  std::mutex change_mutex_;   // one change at a time; taken before mutex_, held over the write
  mutable std::mutex mutex_;  // guards the maps, briefly
  TauRecords records_;        // also of models that are not loaded
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TAU_CONTROL_H_
