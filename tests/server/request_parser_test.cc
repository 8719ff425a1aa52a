#include "server/request_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dimmer/v1/inference.pb.h"
#include "engine/util/status.h"
#include "inference/open_inference.pb.h"

namespace dimmer {
namespace {

using testing::HasSubstr;

// In several slices, as the transport delivers long messages.
grpc::ByteBuffer Buffer(const std::string& bytes) {
  std::vector<grpc::Slice> slices;
  for (size_t i = 0; i < bytes.size(); i += 5) slices.emplace_back(bytes.substr(i, 5));
  return {slices.data(), slices.size()};
}

std::string Field(int number, const std::string& value) {  // length-delimited, both short
  return std::string(1, static_cast<char>(number << 3 | 2)) +
         std::string(1, static_cast<char>(value.size())) + value;
}

TEST(RequestParserTest, ParsesAcrossSlices) {
  v1::ClassifyRequest request;
  request.set_model("emotion");
  request.add_texts("grüße, 你好");
  request.mutable_budget()->set_tau(.25);
  v1::ClassifyRequest parsed;
  ASSERT_TRUE(ParseRequest(Buffer(request.SerializeAsString()), &parsed).ok());
  EXPECT_EQ(parsed.SerializeAsString(), request.SerializeAsString());
}

TEST(RequestParserTest, AnEmptyMessageIsAMessage) {
  v1::ClassifyRequest parsed;
  EXPECT_TRUE(ParseRequest(grpc::ByteBuffer(), &parsed).ok() ||
              ParseRequest(Buffer(""), &parsed).ok());
}

TEST(RequestParserTest, NamesTheStringThatIsNotUtf8) {
  v1::ClassifyRequest parsed;
  const std::string bytes = Field(1, "emotion") + Field(3, "fine") + Field(3, "i feel \xff");
  const absl::Status status = ParseRequest(Buffer(bytes), &parsed);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Message(status), "texts[1]: not UTF-8 at byte 7");
  EXPECT_EQ(Message(ParseRequest(Buffer(Field(1, "\xC0\x80")), &parsed)),
            "model: not UTF-8 at byte 0");
}

TEST(RequestParserTest, NamesItInNestedMessagesToo) {
  inference::ModelInferRequest parsed;
  const std::string bytes = Field(5, Field(1, "ok")) + Field(5, Field(2, "a\xED\xA0\x80"));
  EXPECT_EQ(Message(ParseRequest(Buffer(bytes), &parsed)),
            "inputs[1].datatype: not UTF-8 at byte 1");
}

TEST(RequestParserTest, SaysThatGarbageIsNoMessage) {
  const std::vector<std::string> cases = {
      std::string(64, '\xff'), Field(3, "hello").substr(0, 4),  // cut
      std::string(1, '\x1c'),  // an end of a group that never began
      std::string("\x00", 1),  // field 0
  };
  for (const std::string& bytes : cases) {
    v1::ClassifyRequest parsed;
    const absl::Status status = ParseRequest(Buffer(bytes), &parsed);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(Message(status)), HasSubstr("dimmer.v1.ClassifyRequest"));
  }
}

TEST(RequestParserTest, DeepNestingDoesNotOverflow) {
  const std::string groups(1'000'000, '\x0b');  // each the start of one within the last
  v1::ClassifyRequest parsed;
  EXPECT_EQ(ParseRequest(Buffer(groups), &parsed).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace dimmer
