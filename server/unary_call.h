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

#include <functional>
#include <string_view>

#include "engine/engine.h"
#include "server/request_parser.h"
#include "server/rpc_call.h"

namespace dimmer {

class UnaryCall : public grpc::ServerUnaryReactor, public RpcCall {
 public:
  UnaryCall(const CallShared& shared, std::string_view rpc, grpc::CallbackServerContext* context,
            grpc::ByteBuffer* response)
      : RpcCall(shared, rpc, context), response_(response) {}

  void Reply(const google::protobuf::Message& answer);
  void Fail(const absl::Status& status);

  // Submits to the engine; a client that leaves cancels the ticket. An error ends the call, success
  // is counted and passed on to `answer`, which must Reply() or Fail().
  void Submit(Engine& engine, Request request,
              std::function<void(UnaryCall* call, const Response& response)> answer);

  void OnCancel() override { ticket()->Cancel(); }
  void OnDone() override { delete this; }

 private:
  ~UnaryCall() override = default;

  grpc::ByteBuffer* const response_;
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
