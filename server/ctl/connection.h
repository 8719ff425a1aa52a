// How dimmerctl reaches a server, and what it says where that fails.
//
// Thread safety: pure functions, but for the calls that they make.
#ifndef DIMMER_SERVER_CTL_CONNECTION_H_
#define DIMMER_SERVER_CTL_CONNECTION_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <string>

#include "dimmer/v1/admin.grpc.pb.h"
#include "dimmer/v1/inference.grpc.pb.h"
#include "server/ctl/command_line.h"

namespace dimmer::ctl {

enum class Port : uint8_t { kAdmin, kInference };

std::unique_ptr<v1::Admin::Stub> ConnectAdmin(const Options& options);
std::unique_ptr<v1::Inference::Stub> ConnectInference(const Options& options);

void SetDeadline(const Options& options, grpc::ClientContext* context);

// OK, or the server's message with what to try next. A server that cannot be reached is named with
// its address and with the flag and variable that choose another.
absl::Status Explain(const grpc::Status& status, const Options& options, Port port);

// options.model as Admin describes it.
absl::StatusOr<v1::Model> GetModel(const Options& options, v1::Admin::Stub& admin);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_CONNECTION_H_
