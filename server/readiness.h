// Whether the server, and each model, takes calls. Health, Open Inference and HTTP all ask here.
//
// Thread safety: all methods may be called from any thread.
#ifndef DIMMER_SERVER_READINESS_H_
#define DIMMER_SERVER_READINESS_H_

#include <absl/status/status.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "engine/engine.h"

namespace dimmer {

class Readiness {
 public:
  enum class Phase : uint8_t { kStarting, kServing, kDraining };

  explicit Readiness(const Engine* engine) : engine_(engine) {}  // not owned

  void SetPhase(Phase phase) { phase_.store(phase, std::memory_order_release); }
  Phase phase() const { return phase_.load(std::memory_order_acquire); }

  // OK, or Unavailable: still loading, or "GRPC server is shutting down".
  absl::Status Admit() const;
  // Serving, and not every model failed to load.
  bool ServerReady() const;
  // ServerReady(), and the gRPC ports listen: what a probe on another port must know. Who asks over
  // gRPC need not.
  bool Reachable() const { return listening_.load(std::memory_order_acquire) && ServerReady(); }
  void SetListening() { listening_.store(true, std::memory_order_release); }
  // `version` "" is any.
  bool ModelReady(const std::string& model, const std::string& version) const;
  // The model is in a repository, loaded or not.
  bool KnowsModel(const std::string& model) const;

 private:
  const Engine* engine_;
  std::atomic<Phase> phase_{Phase::kStarting};
  std::atomic<bool> listening_ = false;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_READINESS_H_
