// Starts a gRPC server on one port.
//
// Thread safety: call from one thread.
#ifndef DIMMER_SERVER_GRPC_SERVER_H_
#define DIMMER_SERVER_GRPC_SERVER_H_

#include <absl/status/statusor.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "server/config.h"

namespace dimmer {

struct ListeningGrpcServer {
  std::unique_ptr<grpc::Server> server;
  int port = 0;  // picked if 0 was asked for
};

// Serves `services` (not owned) and reflection over them, with the config's --grpc-* settings.
// Unavailable: the address cannot be bound; names `flag`.
absl::StatusOr<ListeningGrpcServer> StartGrpcServer(const std::string& address, int port,
                                                    const std::string& flag,
                                                    const std::vector<grpc::Service*>& services,
                                                    const Config& config);

// "10.0.0.1:80", "[::1]:80"
std::string HostPort(const std::string& address, int port);

}  // namespace dimmer

#endif  // DIMMER_SERVER_GRPC_SERVER_H_
