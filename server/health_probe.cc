#include "server/health_probe.h"

#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "grpc/health/v1/health.grpc.pb.h"
#include "server/grpc_server.h"

namespace dimmer {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

std::string ProbeAddress(const std::string& address) {
  if (address == "0.0.0.0") return "127.0.0.1";
  if (address == "::") return "::1";
  return address;
}

absl::Status ProbeHealth(const std::string& address, int port, std::chrono::milliseconds timeout) {
  const std::string target = HostPort(ProbeAddress(address), port);
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // http_proxy is not for this machine's own port
  const auto stub = grpc::health::v1::Health::NewStub(
      grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  HealthCheckResponse answer;
  const grpc::Status status = stub->Check(&context, HealthCheckRequest(), &answer);
  if (!status.ok()) {
    return absl::UnavailableError(
        fmt::format("{}: no answer to a gRPC health check: {}", target, status.error_message()));
  }
  if (answer.status() != HealthCheckResponse::SERVING) {
    return absl::UnavailableError(
        fmt::format("{}: found {}, expected SERVING", target,
                    HealthCheckResponse::ServingStatus_Name(answer.status())));
  }
  return absl::OkStatus();
}

}  // namespace dimmer
