// From absl::Status to what a gRPC client sees. The one place where statuses cross.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_GRPC_STATUS_H_
#define DIMMER_SERVER_GRPC_STATUS_H_

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

#include <string_view>

namespace dimmer {

// The same code and message. Messages are cut to 1024 bytes, since they travel in a header and may
// quote what a client sent. ResourceExhausted is what a queue answers that is full now, and nothing
// else: it carries google.rpc.RetryInfo in "grpc-status-details-bin".
grpc::Status ToGrpcStatus(const absl::Status& status);

// "RESOURCE_EXHAUSTED", as in metrics and logs.
std::string_view CodeName(absl::StatusCode code);

}  // namespace dimmer

#endif  // DIMMER_SERVER_GRPC_STATUS_H_
