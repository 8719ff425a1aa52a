#include "server/write_queue.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace dimmer {
namespace {

grpc::ByteBuffer Bytes(const std::string& text) {
  const grpc::Slice slice(text);
  return {&slice, 1};
}

std::string Text(const grpc::ByteBuffer& bytes) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(bytes.Dump(&slices).ok());
  std::string text;
  for (const grpc::Slice& slice : slices) {
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return text;
}

// A reactor whose writes are done when the test says so.
class FakeOut : public StreamOut {
 public:
  void Write(const grpc::ByteBuffer* message) override {
    EXPECT_FALSE(writing);
    writing = true;
    written.push_back(Text(*message));
  }
  void Finish(const absl::Status& status) override {
    EXPECT_FALSE(writing);
    ends.push_back(status);
  }
  // True: Push() said no, and there is room again.
  bool Done(WriteQueue& queue, bool ok = true) {
    EXPECT_TRUE(writing);
    writing = false;
    const bool room = queue.Pop(ok);
    queue.Next();
    return room;
  }

  bool writing = false;
  std::vector<std::string> written;
  std::vector<absl::Status> ends;
};

TEST(WriteQueueTest, WritesOneAtATimeInOrderThenEnds) {
  FakeOut out;
  WriteQueue queue(&out);
  for (const char* text : {"a", "b", "c"}) EXPECT_TRUE(queue.Push(Bytes(text)));
  EXPECT_EQ(out.written, std::vector<std::string>({"a"}));
  queue.End(absl::OkStatus());
  while (out.writing) EXPECT_FALSE(out.Done(queue));
  EXPECT_EQ(out.written, std::vector<std::string>({"a", "b", "c"}));
  EXPECT_EQ(out.ends, std::vector<absl::Status>({absl::OkStatus()}));
}

TEST(WriteQueueTest, WritesAgainAfterItWasIdle) {
  FakeOut out;
  WriteQueue queue(&out);
  queue.Push(Bytes("a"));
  out.Done(queue);
  EXPECT_FALSE(out.writing);
  queue.Push(Bytes("b"));
  out.Done(queue);
  EXPECT_TRUE(out.ends.empty());
  queue.End(absl::InternalError("x"));
  EXPECT_EQ(out.written, std::vector<std::string>({"a", "b"}));
  EXPECT_EQ(out.ends, std::vector<absl::Status>({absl::InternalError("x")}));
}

TEST(WriteQueueTest, AnErrorComesAfterWhatWaits) {
  FakeOut out;
  WriteQueue queue(&out);
  queue.Push(Bytes("a"));
  queue.Push(Bytes("b"));
  queue.End(absl::DeadlineExceededError("late"));
  EXPECT_TRUE(out.ends.empty());
  out.Done(queue);
  out.Done(queue);
  EXPECT_EQ(out.written, std::vector<std::string>({"a", "b"}));
  EXPECT_EQ(out.ends, std::vector<absl::Status>({absl::DeadlineExceededError("late")}));
}

TEST(WriteQueueTest, SaysFullOnceAndRoomOnceHalfHaveLeft) {
  FakeOut out;
  WriteQueue queue(&out);
  size_t pushed = 1;
  while (queue.Push(Bytes("x"))) ++pushed;
  EXPECT_EQ(pushed, 1 + kMaxWaitingMessages);  // and the one being written
  size_t left = pushed;
  bool room = false;
  while (!room) {
    room = out.Done(queue);
    --left;
  }
  EXPECT_EQ(left, kMaxWaitingMessages / 2);
  EXPECT_FALSE(out.Done(queue));  // said once
  EXPECT_TRUE(queue.Push(Bytes("y")));
}

// If Push() told another that there is room, the first one's pause would never end.
TEST(WriteQueueTest, StaysFullForEverybodyUntilItHasRoom) {
  FakeOut out;
  WriteQueue queue(&out);
  while (queue.Push(Bytes("x"))) {
  }
  for (size_t i = 0; i < kMaxWaitingMessages / 4; ++i) EXPECT_FALSE(out.Done(queue));
  EXPECT_FALSE(queue.Push(Bytes("another's")));
  bool room = false;
  while (out.writing && !room) room = out.Done(queue);
  EXPECT_TRUE(room);
}

TEST(WriteQueueTest, ABrokenStreamDropsWhatWaitsAndEndsCancelled) {
  FakeOut out;
  WriteQueue queue(&out);
  while (queue.Push(Bytes("x"))) {
  }
  EXPECT_TRUE(out.Done(queue, false));  // nobody is to wait for this reader
  EXPECT_TRUE(queue.Push(Bytes("y")));
  EXPECT_EQ(out.written.size(), 1u);
  EXPECT_TRUE(out.ends.empty());  // its generation still runs
  queue.End(absl::OkStatus());
  ASSERT_EQ(out.ends.size(), 1u);
  EXPECT_EQ(out.ends[0].code(), absl::StatusCode::kCancelled);
}

TEST(WriteQueueTest, BreakingAfterTheEndEndsCancelled) {
  FakeOut out;
  WriteQueue queue(&out);
  queue.Push(Bytes("a"));
  queue.Push(Bytes("b"));
  queue.End(absl::OkStatus());
  out.Done(queue, false);
  EXPECT_EQ(out.written.size(), 1u);
  ASSERT_EQ(out.ends.size(), 1u);
  EXPECT_EQ(out.ends[0].code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace dimmer
