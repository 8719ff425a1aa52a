#include "server/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <utility>

#include "engine/util/status.h"
#include "server/http_server.h"

namespace dimmer {
namespace {

void Configure(const Config& config, grpc::ServerBuilder& builder) {
  const auto set = [&](const char* argument, uint64_t value) {
    builder.AddChannelArgument(argument, static_cast<int>(value));
  };
  // Without this a second server on the port would silently take half of its connections.
  set(GRPC_ARG_ALLOW_REUSEPORT, 0);
  set(GRPC_ARG_KEEPALIVE_TIME_MS, config.grpc_keepalive_time);
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, config.grpc_keepalive_timeout);
  set(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, config.grpc_keepalive_permit_without_calls ? 1 : 0);
  set(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, config.grpc_http2_max_pings_without_data);
  set(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      config.grpc_http2_min_recv_ping_interval_without_data);
  set(GRPC_ARG_HTTP2_MAX_PING_STRIKES, config.grpc_http2_max_ping_strikes);
  if (config.grpc_max_connection_age > 0) {
    set(GRPC_ARG_MAX_CONNECTION_AGE_MS, config.grpc_max_connection_age);
  }
  if (config.grpc_max_connection_age_grace > 0) {
    set(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, config.grpc_max_connection_age_grace);
  }
  builder.SetMaxReceiveMessageSize(static_cast<int>(config.grpc_max_message_bytes));
}

}  // namespace

absl::StatusOr<ListeningGrpcServer> StartGrpcServer(const std::string& address, int port,
                                                    const std::string& flag,
                                                    const std::vector<grpc::Service*>& services,
                                                    const Config& config) {
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  Configure(config, builder);
  ListeningGrpcServer started;
  builder.AddListeningPort(HostPort(address, port), grpc::InsecureServerCredentials(),
                           &started.port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  started.server = builder.BuildAndStart();
  if (started.server == nullptr || started.port <= 0) return PortError(address, port, flag);
  return started;
}

std::string HostPort(const std::string& address, int port) {
  return address.find(':') == std::string::npos ? fmt::format("{}:{}", address, port)
                                                : fmt::format("[{}]:{}", address, port);
}

}  // namespace dimmer
