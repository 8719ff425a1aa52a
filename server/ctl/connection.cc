#include "server/ctl/connection.h"

#include <absl/strings/match.h>
#include <absl/time/clock.h>
#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include "engine/util/status.h"
#include "server/ctl/text.h"

namespace dimmer::ctl {
namespace {

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // it is our own server that answers
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

std::unique_ptr<v1::Admin::Stub> ConnectAdmin(const Options& options) {
  return v1::Admin::NewStub(Connect(options.admin_address));
}

std::unique_ptr<v1::Inference::Stub> ConnectInference(const Options& options) {
  return v1::Inference::NewStub(Connect(options.address));
}

void SetDeadline(const Options& options, grpc::ClientContext* context) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
}

absl::Status Explain(const grpc::Status& status, const Options& options, Port port) {
  if (status.ok()) return absl::OkStatus();
  const bool admin = port == Port::kAdmin;
  const std::string& address = admin ? options.admin_address : options.address;
  const std::string choose = admin ? "--admin-address HOST:PORT or DIMMER_ADMIN_ADDRESS"
                                   : "--address HOST:PORT or DIMMER_GRPC_ADDRESS";
  const std::string message = Printable(status.error_message());
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      // What gRPC's client writes where there is no connection; the server's own words are others.
      if (absl::StrContains(message, "connect") || absl::StrContains(message, "DNS") ||
          absl::StrContains(message, "Socket closed")) {
        return absl::UnavailableError(fmt::format(
            "no server answers at {} ({} port): {}\n  dimmer-server prints its ports when it "
            "starts; choose another with {}",
            address, admin ? "admin" : "gRPC", message, choose));
      }
      return absl::UnavailableError(fmt::format("{}: {}", address, message));
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return absl::DeadlineExceededError(
          fmt::format("{} has not answered within {} (--timeout): {}", address,
                      absl::FormatDuration(options.timeout), message));
    case grpc::StatusCode::UNIMPLEMENTED:
      return absl::UnimplementedError(fmt::format(
          "{}: {}\n  is this the {} port of a dimmer-server of version {}? Choose another with {}",
          address, message.empty() ? "UNIMPLEMENTED" : message, admin ? "admin" : "gRPC",
          DIMMER_VERSION, choose));
    case grpc::StatusCode::NOT_FOUND:
      return absl::NotFoundError(
          fmt::format("{}\n  `dimmerctl models` lists what {} serves", message, address));
    case grpc::StatusCode::ABORTED:
      return absl::AbortedError(fmt::format(
          "{}\n  nothing was changed; look at what is in force with `dimmerctl describe {}`",
          message, Printable(options.model)));
    default:
      return absl::Status(code, message);
  }
}

absl::StatusOr<v1::Model> GetModel(const Options& options, v1::Admin::Stub& admin) {
  grpc::ClientContext context;
  SetDeadline(options, &context);
  v1::GetModelRequest request;
  request.set_model(options.model);
  v1::GetModelResponse answer;
  DIMMER_RETURN_IF_ERROR(
      Explain(admin.GetModel(&context, request, &answer), options, Port::kAdmin));
  return std::move(*answer.mutable_model());
}

}  // namespace dimmer::ctl
