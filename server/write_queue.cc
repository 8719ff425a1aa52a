#include "server/write_queue.h"

#include "engine/util/status.h"

namespace dimmer {

bool WriteQueue::Push(const grpc::ByteBuffer& message) {
  const grpc::ByteBuffer* first = nullptr;
  bool more = true;
  {
    const std::lock_guard lock(mutex_);
    if (broken_) return true;
    messages_.push_back(message);  // its slices are shared
    if (!writing_) {
      writing_ = true;
      first = &messages_.front();
    }
    full_ = full_ || messages_.size() > kMaxWaitingMessages;
    more = !full_;
  }
  if (first != nullptr) out_->Write(first);
  return more;
}

bool WriteQueue::full() const {
  const std::lock_guard lock(mutex_);
  return full_;
}

void WriteQueue::End(absl::Status status) {
  {
    const std::lock_guard lock(mutex_);
    if (broken_) status = RequestCancelled();
    end_ = status;
    if (writing_) return;  // Next() ends it
  }
  out_->Finish(status);
}

bool WriteQueue::Pop(bool ok) {
  const std::lock_guard lock(mutex_);
  messages_.pop_front();
  if (!ok) {
    broken_ = true;
    messages_.clear();
    if (end_.has_value()) end_ = RequestCancelled();
  }
  if (!full_ || messages_.size() > kMaxWaitingMessages / 2) return false;
  full_ = false;
  return true;
}

void WriteQueue::Next() {
  const grpc::ByteBuffer* next = nullptr;
  std::optional<absl::Status> end;
  {
    const std::lock_guard lock(mutex_);
    writing_ = !messages_.empty();
    if (writing_) {
      next = &messages_.front();
    } else {
      end = end_;
    }
  }
  if (next != nullptr) {
    out_->Write(next);
  } else if (end.has_value()) {
    out_->Finish(*end);
  }
}

}  // namespace dimmer
