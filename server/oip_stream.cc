#include "server/oip_stream.h"

#include <fmt/format.h>

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/util/status.h"
#include "inference/open_inference.pb.h"
#include "server/grpc_status.h"
#include "server/message_bytes.h"
#include "server/oip_call.h"
#include "server/oip_convert.h"
#include "server/request_parser.h"
#include "server/write_queue.h"

namespace dimmer {
namespace {

// One request of a stream, counted as a call of its own.
class StreamRequest : public RpcCall {
 public:
  StreamRequest(const CallShared& shared, grpc::CallbackServerContext* context)
      : RpcCall(shared, "ModelStreamInfer", context) {}
  using RpcCall::Count;
  using RpcCall::ticket;

  std::string id;
  std::shared_ptr<const ServedModel> model;
  std::vector<std::string> outputs;
  Budget asked;
};

}  // namespace

// `requests_` holds what was read and is not answered. While it is not empty the stream cannot end,
// so that engine threads may use it; the last of them to leave ends it. No operation is started
// after the end.
class OipStreams::Stream : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                           private StreamOut {
 public:
  Stream(OipStreams* owner, grpc::CallbackServerContext* context)
      : owner_(owner), context_(context), queue_(this) {}

  void Start() { StartRead(&bytes_); }

  // Takes no more requests; ends with `status` once those it has are answered.
  void End(const absl::Status& status) {
    {
      const std::lock_guard lock(mutex_);
      if (!no_more_) end_ = status;
      no_more_ = true;
      if (!Over()) return;
    }
    queue_.End(end_);
  }

  void OnReadDone(bool ok) override {
    {
      const std::lock_guard lock(mutex_);
      ++reactions_;
    }
    if (const RequestPtr request = ok ? Take() : nullptr; request != nullptr) {
      const absl::Status status = Submit(request);
      if (!status.ok()) Answer(request, status, {});
      bool read = false;
      {
        const std::lock_guard lock(mutex_);
        reading_ = false;
        read = requests_.size() < kMaxStreamRequests && ReadsOn();
      }
      if (read) StartRead(&bytes_);
    } else {
      const std::lock_guard lock(mutex_);
      no_more_ = true;
    }
    {
      const std::lock_guard lock(mutex_);
      --reactions_;
      if (!Over()) return;
    }
    queue_.End(end_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) OnCancel();
    if (queue_.Pop(ok)) {
      ForEach(&TicketSlot::Resume);
      bool read = false;
      {
        const std::lock_guard lock(mutex_);
        read = requests_.size() < kMaxStreamRequests && ReadsOn();
      }
      if (read) StartRead(&bytes_);  // the stream cannot end before Next()
    } else if (queue_.full()) {
      ForEach(&TicketSlot::Touch);
    }
    queue_.Next();
  }

  void OnCancel() override {
    {
      const std::lock_guard lock(mutex_);
      cancelled_ = true;
    }
    ForEach(&TicketSlot::Cancel);
  }

  void OnDone() override {
    owner_->Remove(this);
    delete this;
  }

 private:
  using RequestPtr = std::shared_ptr<StreamRequest>;

  ~Stream() override = default;

  // Null if the stream takes no more.
  RequestPtr Take() {
    auto request = std::make_shared<StreamRequest>(owner_->shared_, context_);
    const std::lock_guard lock(mutex_);
    if (no_more_ || cancelled_) return nullptr;
    requests_.insert(request);
    return request;
  }

  // From bytes_ to the engine.
  absl::Status Submit(const RequestPtr& request) {
    inference::ModelInferRequest message;
    DIMMER_RETURN_IF_ERROR(owner_->shared_.readiness->Admit());
    DIMMER_RETURN_IF_ERROR(ParseRequest(bytes_, &message));
    if (message.id().size() <= kMaxInferId) request->id = message.id();
    DIMMER_ASSIGN_OR_RETURN(
        OipCall call, DecodeOipCall(*owner_->engine_, message, owner_->max_texts_, request.get()));
    request->model = std::move(call.model);
    request->outputs = std::move(call.outputs);
    request->asked = call.request.budget;
    if (call.request.task == Task::kGeneration) {
      call.request.on_piece = [this, request](const Piece& piece) {
        return OnPiece(*request, piece);
      };
    }
    Engine::Ticket ticket = owner_->engine_->Submit(
        std::move(call.request),
        [this, request](const Response& response) { OnAnswer(request, response); });
    request->ticket()->Set(std::move(ticket));
    return absl::OkStatus();
  }

  // What it throws, out of memory, fails the generation.
  bool OnPiece(const StreamRequest& request, const Piece& piece) {
    inference::ModelStreamInferResponse message;
    message.mutable_infer_response()->set_id(request.id);
    EncodePiece(piece, *request.model, request.outputs, message.mutable_infer_response());
    grpc::ByteBuffer bytes;
    const absl::Status written = ToBytes(message, &bytes);
    if (!written.ok()) throw std::runtime_error(std::string(written.message()));
    return queue_.Push(bytes);
  }

  void OnAnswer(const RequestPtr& request, const Response& response) {
    inference::ModelStreamInferResponse message;
    absl::Status status = response.status;
    try {
      request->metrics().OnAnswer(request->asked, response);
      if (status.ok()) {
        EncodeFinal(response, request->model->model->info(), request->outputs,
                    message.mutable_infer_response());
      }
    } catch (const std::exception& error) {  // out of memory
      status = absl::InternalError(fmt::format("no answer was made: {}", error.what()));
    }
    Answer(request, status, std::move(message));
  }

  // Sends the last answer to a request and lets go of it. Afterwards the stream may be gone, but
  // for a reaction.
  void Answer(const RequestPtr& request, const absl::Status& status,
              inference::ModelStreamInferResponse message) {
    grpc::ByteBuffer bytes;
    if (!status.ok()) {
      message.Clear();
      message.set_error_message(ToGrpcStatus(status).error_message());
    }
    message.mutable_infer_response()->set_id(request->id);
    const absl::Status written = ToBytes(message, &bytes);
    request->Count(written.ok() ? status.code() : written.code());
    if (written.ok()) queue_.Push(bytes);
    bool read = false;
    {
      // Reading goes on before the request is let go, while the stream cannot end.
      const std::lock_guard lock(mutex_);
      read = ReadsOn();
    }
    if (read) StartRead(&bytes_);
    {
      const std::lock_guard lock(mutex_);
      requests_.erase(request);
      if (!Over()) return;
    }
    queue_.End(end_);
  }

  // Whether to read the next request now: not while answers wait for the client to read. Under the
  // lock.
  bool ReadsOn() {
    if (reading_ || no_more_ || queue_.full()) return false;
    reading_ = true;
    return true;
  }

  // True once: when it is time to end. Under the lock.
  bool Over() {
    if (!no_more_ || !requests_.empty() || reactions_ > 0 || ended_) return false;
    ended_ = true;
    return true;
  }

  void ForEach(void (TicketSlot::*action)()) {
    std::vector<std::shared_ptr<TicketSlot>> tickets;
    {
      const std::lock_guard lock(mutex_);
      for (const RequestPtr& request : requests_) tickets.push_back(request->ticket());
    }
    for (const auto& ticket : tickets) (ticket.get()->*action)();
  }

  void Write(const grpc::ByteBuffer* message) override { StartWrite(message); }
  void Finish(const absl::Status& status) override {
    grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>::Finish(ToGrpcStatus(status));
  }

  OipStreams* const owner_;
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer bytes_;  // being read, or parsed
  WriteQueue queue_;
  std::mutex mutex_;
  std::set<RequestPtr> requests_;
  bool reading_ = true;  // or parsing
  int reactions_ = 0;    // to a read: while there is one the stream cannot end
  bool no_more_ = false;
  bool cancelled_ = false;
  bool ended_ = false;
  absl::Status end_;  // set with no_more_
};

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* OipStreams::Open(
    grpc::CallbackServerContext* context) {
  auto* stream = new Stream(this, context);
  bool shut_down = false;
  {
    const std::lock_guard lock(mutex_);
    streams_.insert(stream);
    shut_down = shut_down_;
    if (!shut_down) stream->Start();
  }
  if (shut_down) stream->End(absl::UnavailableError("GRPC server is shutting down"));
  return stream;
}

void OipStreams::Shutdown() {
  const std::lock_guard lock(mutex_);
  shut_down_ = true;
  for (Stream* stream : streams_) {
    stream->End(absl::UnavailableError("GRPC server is shutting down"));
  }
}

void OipStreams::Remove(Stream* stream) {
  const std::lock_guard lock(mutex_);
  streams_.erase(stream);
}

}  // namespace dimmer
