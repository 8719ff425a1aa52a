#include "server/unary_call.h"

#include <fmt/format.h>

#include <exception>
#include <memory>
#include <utility>

#include "server/grpc_status.h"
#include "server/message_bytes.h"

namespace dimmer {

void UnaryCall::Submit(Engine& engine, Request request,
                       std::function<void(UnaryCall*, const Response&)> answer) {
  const std::shared_ptr<TicketSlot> slot = ticket();
  const Budget asked = request.budget;
  Engine::Ticket submitted = engine.Submit(
      std::move(request), [this, asked, answer = std::move(answer)](const Response& response) {
        try {
          metrics().OnAnswer(asked, response);
          if (!response.status.ok()) {
            Fail(response.status);
            return;
          }
          answer(this, response);
        } catch (const std::exception& error) {  // out of memory, before anything was sent
          Fail(absl::InternalError(fmt::format("no answer was made: {}", error.what())));
        }
      });
  slot->Set(std::move(submitted));
}

void UnaryCall::Reply(const google::protobuf::Message& answer) {
  const absl::Status written = ToBytes(answer, response_);
  if (!written.ok()) {
    Fail(written);
    return;
  }
  Count(absl::StatusCode::kOk);
  Finish(grpc::Status::OK);
}

void UnaryCall::Fail(const absl::Status& status) {
  Count(status.code());
  Finish(ToGrpcStatus(status));
}

}  // namespace dimmer
