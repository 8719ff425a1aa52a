// Open Inference's ModelStreamInfer: requests in, answers out as they are made, each under its id.
// A generation is answered piece by piece, as Triton's decoupled models do it; a reader that is
// behind pauses the generations of its own stream only.
//
// Thread safety: all methods may be called from any thread.
#ifndef DIMMER_SERVER_OIP_STREAM_H_
#define DIMMER_SERVER_OIP_STREAM_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <mutex>
#include <set>

#include "engine/engine.h"
#include "server/rpc_call.h"

namespace dimmer {

// Requests of one stream that are unanswered; the next is read once there are fewer, and once the
// client reads its answers.
inline constexpr size_t kMaxStreamRequests = 64;

class OipStreams {
 public:
  // Nothing is owned.
  OipStreams(Engine* engine, const CallShared& shared, size_t max_texts)
      : engine_(engine), shared_(shared), max_texts_(max_texts) {}

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Open(
      grpc::CallbackServerContext* context);

  // Ends every stream, those to come too, with Unavailable, once what it has taken is answered.
  void Shutdown();

 private:
  class Stream;
  void Remove(Stream* stream);

  Engine* const engine_;
  const CallShared shared_;
  const size_t max_texts_;
  std::mutex mutex_;  // before a Stream's own
  std::set<Stream*> streams_;
  bool shut_down_ = false;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_OIP_STREAM_H_
