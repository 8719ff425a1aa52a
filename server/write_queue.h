// The messages of one stream on their way out: one is written at a time, a few may wait.
//
// Thread safety: Push(), full() and End() may be called from any thread; Pop() and Next() by the
// reactor, from its OnWriteDone().
#ifndef DIMMER_SERVER_WRITE_QUEUE_H_
#define DIMMER_SERVER_WRITE_QUEUE_H_

#include <absl/status/status.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>

namespace dimmer {

// Messages beyond the one being written. Who makes them is asked to pause here, and to go on once
// half of them have left.
inline constexpr size_t kMaxWaitingMessages = 16;

// The reactor's side. Called without the queue's lock.
class StreamOut {
 public:
  // Starts to write; the message stays valid until Pop().
  virtual void Write(const grpc::ByteBuffer* message) = 0;
  // Ends the stream; the last call, after which the reactor may be gone.
  virtual void Finish(const absl::Status& status) = 0;

 protected:
  ~StreamOut() = default;
};

class WriteQueue {
 public:
  explicit WriteQueue(StreamOut* out) : out_(out) {}  // not owned

  // Takes the message. False: no more is wanted until Pop() has returned true, from whomever. Of a
  // broken stream it is dropped.
  bool Push(const grpc::ByteBuffer& message);
  // Whether Push() has said false, and Pop() not yet true.
  bool full() const;
  // Ends the stream after what waits; with Cancelled where it is broken. Once.
  void End(absl::Status status);

  // A write is done; not `ok`: the stream is broken, what waits is dropped. True: Push() has said
  // false, and has room again.
  bool Pop(bool ok);
  // After Pop(): writes the next message, or ends the stream if it is time.
  void Next();

 private:
  StreamOut* const out_;
  mutable std::mutex mutex_;
  std::deque<grpc::ByteBuffer> messages_;  // the first is being written if `writing_`
  bool writing_ = false;
  bool full_ = false;  // since Push() said so
  bool broken_ = false;
  std::optional<absl::Status> end_;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_WRITE_QUEUE_H_
