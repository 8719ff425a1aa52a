// grpc.health.v1: Check and Watch for the server (""), each model by name, and each gRPC service of
// the data port by its full name.
//
// Source: github.com/grpc/grpc/blob/master/doc/health-checking.md.
//
// Thread safety: all methods may be called from any thread.
#ifndef DIMMER_SERVER_HEALTH_SERVICE_H_
#define DIMMER_SERVER_HEALTH_SERVICE_H_

#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"
#include "server/readiness.h"
#include "server/unary_call.h"

namespace dimmer {

namespace health {
using Service = grpc::health::v1::Health;
using Response = grpc::health::v1::HealthCheckResponse;
using Raw =
    Service::WithRawCallbackMethod_Check<Service::WithCallbackMethod_Watch<Service::Service>>;
}  // namespace health

class HealthService : public health::Raw {
 public:
  explicit HealthService(const CallShared& shared) : shared_(shared) {}

  // Tells the watchers what has changed. To be called after every change of readiness.
  void Refresh();
  // Refresh(), then ends every watch, those to come too, with Unavailable.
  void Shutdown();

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer* bytes,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<health::Response>* Watch(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  class Watcher;

  // nullopt: no such service.
  std::optional<health::Response::ServingStatus> StatusOf(const std::string& service) const;
  void Remove(Watcher* watcher);

  const CallShared shared_;
  std::mutex mutex_;  // before a Watcher's own
  std::set<Watcher*> watchers_;
  bool shut_down_ = false;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_HEALTH_SERVICE_H_
