// dimmer-server --health-check: asks a running server whether it serves, for probes of containers
// and scripts that have no gRPC client.
//
// Thread safety: no state.
#ifndef DIMMER_SERVER_HEALTH_PROBE_H_
#define DIMMER_SERVER_HEALTH_PROBE_H_

#include <absl/status/status.h>

#include <chrono>
#include <string>

namespace dimmer {

// Where a server that listens on `address` is reached from the same machine: the loopback address
// of its family if that is every interface, and `address` itself otherwise.
std::string ProbeAddress(const std::string& address);

// grpc.health.v1 Check("") on `address` (as --address takes it) and `port`. OK: it is serving.
// Unavailable: it says that it is not, or does not answer within `timeout`; names host and port.
absl::Status ProbeHealth(const std::string& address, int port, std::chrono::milliseconds timeout);

}  // namespace dimmer

#endif  // DIMMER_SERVER_HEALTH_PROBE_H_
