#include "engine/text/token_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "engine/text/utf8.h"

namespace dimmer {
namespace {

// Token 0 starts a text, 1 ends it; 2 and up are given.
class FakeTokenizer : public Tokenizer {
 public:
  FakeTokenizer(std::vector<std::string> tokens, bool drops_first_blank)
      : tokens_(std::move(tokens)), drops_first_blank_(drops_first_blank) {}
  absl::StatusOr<Encoding> Encode(std::string_view, std::optional<std::string_view>,
                                  const EncodeOptions&) const override {
    return absl::UnimplementedError("not needed here");
  }
  std::string_view TokenOf(int32_t id) const override { return BytesOf(id); }
  std::string_view BytesOf(int32_t id) const override {
    return id < 2 ? std::string_view() : std::string_view(tokens_[static_cast<size_t>(id) - 2]);
  }
  size_t vocab_size() const override { return tokens_.size() + 2; }
  std::optional<int32_t> bos_id() const override { return 0; }
  std::optional<int32_t> eos_id() const override { return 1; }
  bool drops_first_blank() const override { return drops_first_blank_; }

 private:
  std::vector<std::string> tokens_;
  bool drops_first_blank_;
};

// The pieces of a stream over tokens that are one byte each.
std::vector<std::string> BytePieces(const std::string& bytes) {
  std::vector<std::string> tokens;
  for (const char c : bytes) tokens.emplace_back(1, c);
  const FakeTokenizer tokenizer(tokens, false);
  TokenStream stream(tokenizer);
  std::vector<std::string> pieces;
  for (size_t i = 0; i < bytes.size(); ++i) {
    pieces.push_back(stream.Push(static_cast<int32_t>(i + 2)));
    EXPECT_FALSE(FindInvalidUtf8(pieces.back())) << "piece " << i << " of " << bytes;
  }
  pieces.push_back(stream.Finish());
  EXPECT_FALSE(stream.holds_back());
  return pieces;
}

TEST(TokenStream, HoldsBackTheBytesOfAnUnfinishedCharacter) {
  EXPECT_EQ(BytePieces("aé\xf0\x9f\x98\x80."),
            (std::vector<std::string>{"a", "", "é", "", "", "", "😀", ".", ""}));
  const FakeTokenizer tokenizer({"x\xe2\x82", "\xac y"}, false);
  TokenStream stream(tokenizer);
  EXPECT_EQ(stream.Push(2), "x");
  EXPECT_TRUE(stream.holds_back());
  EXPECT_EQ(stream.Push(3), "€ y");
  EXPECT_FALSE(stream.holds_back());
}

TEST(TokenStream, ReplacesWhatIsNoCharacter) {
  const std::string r = "\xef\xbf\xbd";
  // Table 3-8 of the Unicode Standard, 15.0, and its neighbours.
  const std::pair<std::string, std::string> cases[] = {
      {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", r + r + r + r + r + r + r + r + "A"},
      {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", r + r + r + r + r + r + r + r + "A"},
      {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", r + r + r + r + r + "A" + r + r + "B"},
      {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", r + r + r + r + "A"},
      {"\xe2\x82", r},
      {"\xf0\x9f\x98", r},
      {"\xc3", r},
      {"\xc3\xc3\xa9", r + "é"},
      {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"}};
  for (const auto& [bytes, wanted] : cases) {
    std::string text;
    for (const std::string& piece : BytePieces(bytes)) text += piece;
    EXPECT_EQ(text, wanted);
  }
}

TEST(TokenStream, DropsTheBlankThatEncodingPutBeforeAText) {
  const FakeTokenizer llama({" Once", " upon", " "}, true);
  EXPECT_EQ(Decode(llama, std::vector<int32_t>{2, 3}), "Once upon");
  EXPECT_EQ(Decode(llama, std::vector<int32_t>{0, 2, 3, 1}), "Once upon");
  EXPECT_EQ(Decode(llama, std::vector<int32_t>{0, 4, 2}), " Once");
  // After a prompt the blank is part of the text; after the start token alone it is not.
  EXPECT_EQ(TokenStream(llama, 2).Push(3), " upon");
  EXPECT_EQ(TokenStream(llama, 0).Push(3), "upon");
  const FakeTokenizer gpt({" Once"}, false);
  EXPECT_EQ(Decode(gpt, std::vector<int32_t>{2}), " Once");
}

}  // namespace
}  // namespace dimmer
