// What every call that runs a model has, unary or stream: its client's deadline, its name in
// metrics and log, and a way to be cancelled.
#ifndef DIMMER_SERVER_RPC_CALL_H_
#define DIMMER_SERVER_RPC_CALL_H_

#include <absl/status/status.h>
#include <grpcpp/server_context.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "server/metrics.h"
#include "server/readiness.h"

namespace dimmer {

// What every call needs. Not owned; outlives the services.
struct CallShared {
  const Readiness* readiness = nullptr;
  Metrics* metrics = nullptr;
};

// When the client stops waiting; max() if it never does.
std::chrono::steady_clock::time_point ClientDeadline(const grpc::CallbackServerContext& context);

// The engine's ticket of a call, shared with the thread that submits: by the time Engine::Submit()
// has returned it, the answer may be out and the call gone. What was asked for before then is done
// by Set().
//
// Thread safety: all methods may be called from any thread.
class TicketSlot {
 public:
  void Set(Engine::Ticket ticket);
  void Cancel();
  void Resume();
  void Touch();
  bool cancelled() const;

 private:
  mutable std::mutex mutex_;
  Engine::Ticket ticket_;
  bool set_ = false;
  bool cancelled_ = false;
  bool resumed_ = false;
};

// Thread safety: Set...() before the call is submitted; the rest from any thread.
class RpcCall {
 public:
  RpcCall(const CallShared& shared, std::string_view rpc, grpc::CallbackServerContext* context)
      : shared_(shared), rpc_(rpc), context_(context) {}
  RpcCall(const RpcCall&) = delete;
  RpcCall& operator=(const RpcCall&) = delete;

  std::chrono::steady_clock::time_point deadline() const { return ClientDeadline(*context_); }
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

 protected:
  ~RpcCall() = default;

  const std::shared_ptr<TicketSlot>& ticket() const { return ticket_; }
  // Counts and logs how the call ended. Before its status is sent: who has an answer finds it
  // counted.
  void Count(absl::StatusCode code) const;

 private:
  const CallShared shared_;
  const std::string_view rpc_;  // a literal
  grpc::CallbackServerContext* const context_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const std::shared_ptr<TicketSlot> ticket_ = std::make_shared<TicketSlot>();
  std::string model_, version_, request_id_;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_RPC_CALL_H_
