#include "server/generate_call.h"

#include <fmt/format.h>

#include <exception>
#include <memory>
#include <stdexcept>
#include <utility>

#include "engine/request_walk.h"
#include "engine/util/status.h"
#include "server/convert.h"
#include "server/grpc_status.h"
#include "server/message_bytes.h"
#include "server/request_parser.h"
#include "server/task_model.h"

namespace dimmer {
namespace {

absl::StatusOr<Request> ToRequest(const v1::GenerateRequest& message, const ServedModel& model) {
  if (message.speculative()) {
    return absl::UnimplementedError(
        "speculative: found true, speculative decoding is not available yet");
  }
  if (message.prompt().size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(fmt::format("prompt: found {} bytes, at most {} are taken",
                                                  message.prompt().size(), kMaxTextBytes));
  }
  Request request;
  request.model = model.name;
  request.version = model.version;
  request.task = Task::kGeneration;
  request.texts = {message.prompt()};
  request.budget = ToBudget(message.budget());
  DIMMER_RETURN_IF_ERROR(ValidateBudget(request.budget));
  request.generate = GenerateOptions{.max_tokens = message.max_tokens(),
                                     .sampling = {.temperature = message.temperature(),
                                                  .top_k = message.top_k(),
                                                  .top_p = message.top_p(),
                                                  .seed = message.seed()},
                                     .stop = {message.stop().begin(), message.stop().end()}};
  return request;
}

absl::Status Start(Engine& engine, GenerateCall* call, const v1::GenerateRequest& message) {
  DIMMER_RETURN_IF_ERROR(call->SetRequestId(message.request_id()));
  DIMMER_ASSIGN_OR_RETURN(const auto model, FindForTask(engine, message.model(), message.version(),
                                                        Task::kGeneration, call));
  DIMMER_ASSIGN_OR_RETURN(Request request, ToRequest(message, *model));
  request.deadline = call->deadline();
  call->Submit(engine, std::move(request));
  return absl::OkStatus();
}

}  // namespace

void GenerateCall::Submit(Engine& engine, Request request) {
  const std::shared_ptr<TicketSlot> slot = ticket();
  const Budget asked = request.budget;
  request.on_piece = [this](const Piece& piece) { return OnPiece(piece); };
  Engine::Ticket submitted = engine.Submit(
      std::move(request), [this, asked](const Response& response) { OnAnswer(asked, response); });
  slot->Set(std::move(submitted));
}

// What it throws, out of memory, fails the generation.
bool GenerateCall::OnPiece(const Piece& piece) {
  v1::GenerateResponse message;
  FromPiece(piece, &message);
  grpc::ByteBuffer bytes;
  const absl::Status written = ToBytes(message, &bytes);
  if (!written.ok()) throw std::runtime_error(std::string(written.message()));
  return queue_.Push(bytes);
}

void GenerateCall::OnAnswer(const Budget& asked, const Response& response) {
  absl::Status status = response.status;
  try {
    metrics().OnAnswer(asked, response);
    if (status.ok()) {
      v1::GenerateResponse last;
      FromGeneration(response, &last);
      grpc::ByteBuffer bytes;
      status = ToBytes(last, &bytes);
      if (status.ok()) queue_.Push(bytes);
    }
  } catch (const std::exception& error) {  // out of memory
    status = absl::InternalError(fmt::format("no answer was made: {}", error.what()));
  }
  queue_.End(std::move(status));
}

void GenerateCall::OnWriteDone(bool ok) {
  if (!ok) ticket()->Cancel();
  if (queue_.Pop(ok)) {
    ticket()->Resume();
  } else if (queue_.full()) {
    ticket()->Touch();
  }
  queue_.Next();
}

void GenerateCall::Finish(const absl::Status& status) {
  Count(status.code());
  grpc::ServerWriteReactor<grpc::ByteBuffer>::Finish(ToGrpcStatus(status));
}

GenerateCall* StartGenerate(Engine& engine, const CallShared& shared,
                            grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes) {
  auto* call = new GenerateCall(shared, context);
  v1::GenerateRequest message;
  absl::Status status = shared.readiness->Admit();
  if (status.ok()) status = ParseRequest(*bytes, &message);
  if (status.ok()) status = Start(engine, call, message);
  if (!status.ok()) call->Fail(status);
  return call;
}

}  // namespace dimmer
