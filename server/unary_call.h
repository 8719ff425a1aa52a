// One unary call of any service, from its bytes to its status: parse, run, answer, count.
//
//   grpc::ServerUnaryReactor* Classify(context, bytes, response) override {
//     return Serve<v1::ClassifyRequest>(shared_, "Classify", context, bytes, response,
//         [this](UnaryCall* call, const v1::ClassifyRequest& request) { ... call->Reply(answer);
//         });
//   }
//
// The call deletes itself once gRPC is done with it: after Reply() or Fail(), do not touch it.
//
// Thread safety: Reply() or Fail() is called once, from any thread. OnCancel() may run beside them.
#ifndef DIMMER_SERVER_UNARY_CALL_H_
#define DIMMER_SERVER_UNARY_CALL_H_

#include <absl/status/status.h>
#include <google/protobuf/message.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "server/metrics.h"
#include "server/readiness.h"
#include "server/request_parser.h"

namespace dimmer {

// What every call needs. Not owned; outlives the services.
struct CallShared {
  const Readiness* readiness = nullptr;
  Metrics* metrics = nullptr;
};

class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(const CallShared& shared, std::string_view rpc, grpc::CallbackServerContext* context,
            grpc::ByteBuffer* response);

  void Reply(const google::protobuf::Message& answer);
  void Fail(const absl::Status& status);

  // When the client stops waiting; max() if it never does.
  std::chrono::steady_clock::time_point deadline() const;
  // Cancelled: the client has left, or a drain has run out of patience. DeadlineExceeded. To be
  // asked before the answer, by work that does not go to the engine.
  absl::Status StillWanted() const;
  std::string peer() const { return context_->peer(); }
  Metrics& metrics() const { return *shared_.metrics; }

  // The model to count this call under; left unset while the server does not know it.
  void SetModel(const std::string& model, const std::string& version);
  // Sends the id back as metadata "request-id" and names it in the log. InvalidArgument unless it
  // is at most 128 printable ASCII characters.
  absl::Status SetRequestId(const std::string& id);

  // Submits to the engine; a client that leaves cancels the ticket. An error ends the call, success
  // is counted and passed on to `answer`, which must Reply() or Fail().
  void Submit(Engine& engine, Request request,
              std::function<void(UnaryCall* call, const Response& response)> answer);

  void OnCancel() override;
  void OnDone() override { delete this; }

 private:
  // The engine's ticket, shared with the thread that submits: by the time Submit() has returned
  // it, the answer may be out and this object gone.
  class CancelSlot;

  ~UnaryCall() override = default;
  void Count(absl::StatusCode code);

  const CallShared shared_;
  const std::string_view rpc_;  // a literal
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::string model_, version_, request_id_;
  std::shared_ptr<CancelSlot> cancel_;
};

// Which calls a server that starts or drains still answers.
enum class Admission : uint8_t { kServing, kAlways };

// Starts a call. `run` is not called if the server takes no calls now or `bytes` do not parse.
template <typename Message>
grpc::ServerUnaryReactor* Serve(
    const CallShared& shared, std::string_view rpc, grpc::CallbackServerContext* context,
    const grpc::ByteBuffer* bytes, grpc::ByteBuffer* response,
    const std::function<void(UnaryCall* call, const Message& request)>& run,
    Admission admission = Admission::kServing) {
  auto* call = new UnaryCall(shared, rpc, context, response);
  Message request;
  absl::Status status =
      admission == Admission::kAlways ? absl::OkStatus() : shared.readiness->Admit();
  if (status.ok()) status = ParseRequest(*bytes, &request);
  if (!status.ok()) {
    call->Fail(status);
  } else {
    run(call, request);
  }
  return call;
}

}  // namespace dimmer

#endif  // DIMMER_SERVER_UNARY_CALL_H_
