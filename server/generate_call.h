// One Generate: from its bytes to its stream's status.
//
// The call deletes itself once gRPC is done with it: after Fail() or Submit(), do not touch it.
//
// Thread safety: Fail() or Submit() is called once, from any thread. The engine's threads hand in
// pieces while gRPC's send them; a reader that is behind pauses its own generation.
#ifndef DIMMER_SERVER_GENERATE_CALL_H_
#define DIMMER_SERVER_GENERATE_CALL_H_

#include <absl/status/status.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "dimmer/v1/inference.pb.h"
#include "engine/engine.h"
#include "server/rpc_call.h"
#include "server/write_queue.h"

namespace dimmer {

class GenerateCall : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                     public RpcCall,
                     private StreamOut {
 public:
  GenerateCall(const CallShared& shared, grpc::CallbackServerContext* context)
      : RpcCall(shared, "Generate", context), queue_(this) {}

  // Without an answer.
  void Fail(const absl::Status& status) { queue_.End(status); }
  // The request is a generation's, without on_piece. A client that leaves cancels it.
  void Submit(Engine& engine, Request request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override { ticket()->Cancel(); }
  void OnDone() override { delete this; }

 private:
  ~GenerateCall() override = default;

  bool OnPiece(const Piece& piece);
  void OnAnswer(const Budget& asked, const Response& response);
  void Write(const grpc::ByteBuffer* message) override { StartWrite(message); }
  void Finish(const absl::Status& status) override;

  WriteQueue queue_;
};

// Starts a call: parsed, checked and on its way to the engine, or refused.
GenerateCall* StartGenerate(Engine& engine, const CallShared& shared,
                            grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes);

}  // namespace dimmer

#endif  // DIMMER_SERVER_GENERATE_CALL_H_
