// The whole server as one object, from configuration to drained: what main() runs, and what tests
// run in process.
//
// Thread safety: Start(), Stop() and the destructor from one thread; the rest from any.
#ifndef DIMMER_SERVER_SERVER_H_
#define DIMMER_SERVER_SERVER_H_

#include <absl/status/statusor.h>

#include <chrono>
#include <memory>
#include <string>

#include "engine/engine.h"
#include "server/config.h"

namespace dimmer {

class Server {
 public:
  // Binds the probe ports, loads the models, then binds the gRPC ports: who can connect is served.
  // Errors: LoadRepositories(), a port that cannot be bound, what Engine::Create() returns.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const Config& config);
  // Stop(), if it was not called.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  struct Ports {
    int http = 0, grpc = 0, metrics = 0, admin = 0;
  };
  const Ports& ports() const { return ports_; }
  // "http 127.0.0.1:8000, grpc 127.0.0.1:8001, metrics ..., admin ..."
  std::string Describe() const;
  Engine& engine();

  // Health turns to NOT_SERVING, new calls are refused with Unavailable, those that run are
  // answered. After `patience` the rest is cancelled. True if every call was answered.
  bool Stop(std::chrono::nanoseconds patience);

 private:
  class Parts;

  explicit Server(const Config& config);
  absl::Status StartHttp();
  absl::Status StartGrpc();

  const Config config_;
  Ports ports_;
  std::unique_ptr<Parts> parts_;
  bool stopped_ = false;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_SERVER_H_
