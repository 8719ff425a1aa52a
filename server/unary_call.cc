#include "server/unary_call.h"

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/proto_buffer_writer.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "engine/util/status.h"
#include "server/grpc_status.h"

namespace dimmer {
namespace {

constexpr size_t kMaxRequestId = 128;

}  // namespace

class UnaryCall::CancelSlot {
 public:
  void Set(Engine::Ticket ticket) {
    const std::lock_guard lock(mutex_);
    if (cancelled_) {
      ticket.Cancel();
    } else {
      ticket_ = std::move(ticket);
      set_ = true;
    }
  }
  bool cancelled() {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }
  void Cancel() {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (set_) ticket_.Cancel();
  }

 private:
  std::mutex mutex_;
  Engine::Ticket ticket_;
  bool set_ = false;
  bool cancelled_ = false;
};

UnaryCall::UnaryCall(const CallShared& shared, std::string_view rpc,
                     grpc::CallbackServerContext* context, grpc::ByteBuffer* response)
    : shared_(shared),
      rpc_(rpc),
      context_(context),
      response_(response),
      cancel_(std::make_shared<CancelSlot>()) {}

std::chrono::steady_clock::time_point UnaryCall::deadline() const {
  using std::chrono::steady_clock;
  using std::chrono::system_clock;
  const system_clock::time_point at = context_->deadline();
  const auto left = at - system_clock::now();
  // gRPC's "never" is far away, not max(); beyond a century the clocks' sums could overflow.
  if (left > std::chrono::hours(24 * 36500)) return steady_clock::time_point::max();
  return steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(left);
}

absl::Status UnaryCall::StillWanted() const {
  if (cancel_->cancelled()) return RequestCancelled();
  return deadline() <= std::chrono::steady_clock::now() ? RequestTimedOut() : absl::OkStatus();
}

void UnaryCall::SetModel(const std::string& model, const std::string& version) {
  model_ = model;
  version_ = version;
}

absl::Status UnaryCall::SetRequestId(const std::string& id) {
  if (id.empty()) return absl::OkStatus();
  const bool printable =
      std::all_of(id.begin(), id.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (id.size() > kMaxRequestId || !printable) {
    return absl::InvalidArgumentError(
        fmt::format("request_id: found {} bytes, expected at most {} printable ASCII characters",
                    id.size(), kMaxRequestId));
  }
  request_id_ = id;
  context_->AddTrailingMetadata("request-id", id);
  return absl::OkStatus();
}

void UnaryCall::Submit(Engine& engine, Request request,
                       std::function<void(UnaryCall*, const Response&)> answer) {
  const std::shared_ptr<CancelSlot> slot = cancel_;
  const Budget asked = request.budget;
  Engine::Ticket ticket = engine.Submit(
      std::move(request), [this, asked, answer = std::move(answer)](const Response& response) {
        if (!response.status.ok()) {
          Fail(response.status);
          return;
        }
        try {
          shared_.metrics->OnAnswer(asked, response);
          answer(this, response);
        } catch (const std::exception& error) {  // out of memory, before anything was sent
          Fail(absl::InternalError(fmt::format("no answer was made: {}", error.what())));
        }
      });
  slot->Set(std::move(ticket));
}

void UnaryCall::Reply(const google::protobuf::Message& answer) {
  bool own_buffer = false;
  const grpc::Status written =
      grpc::GenericSerialize<grpc::ProtoBufferWriter, google::protobuf::Message>(answer, response_,
                                                                                 &own_buffer);
  if (!written.ok()) {
    Fail(absl::InternalError("answer: " + written.error_message()));
    return;
  }
  Count(absl::StatusCode::kOk);
  Finish(grpc::Status::OK);
}

void UnaryCall::Fail(const absl::Status& status) {
  Count(status.code());
  Finish(ToGrpcStatus(status));
}

// Before Finish(): who has an answer finds it counted.
void UnaryCall::Count(absl::StatusCode code) {
  const auto duration = std::chrono::steady_clock::now() - start_;
  shared_.metrics->OnRequest(rpc_, model_, version_, code, duration);
  if (!spdlog::should_log(spdlog::level::debug)) return;
  spdlog::debug("{} {} model={} request_id={} peer={} {:.3f} ms", rpc_, CodeName(code), model_,
                request_id_, context_->peer(),
                std::chrono::duration<double, std::milli>(duration).count());
}

void UnaryCall::OnCancel() { cancel_->Cancel(); }

}  // namespace dimmer
