#include "engine/text_sink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

namespace dimmer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Verdict = TokenSink::Verdict;

// Token i stands for the i-th of the strings.
class ListTokenizer : public Tokenizer {
 public:
  explicit ListTokenizer(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {}
  absl::StatusOr<Encoding> Encode(std::string_view, std::optional<std::string_view>,
                                  const EncodeOptions&) const override {
    return absl::UnimplementedError("not asked for");
  }
  std::string_view TokenOf(int32_t id) const override { return BytesOf(id); }
  std::string_view BytesOf(int32_t id) const override { return tokens_.at(size_t(id)); }
  size_t vocab_size() const override { return tokens_.size(); }

 private:
  std::vector<std::string> tokens_;
};

class TextSinkTest : public testing::Test {
 protected:
  TextSink& Make(std::vector<std::string> tokens, const std::vector<std::string>& stops = {}) {
    sink_.emplace(
        std::make_shared<ListTokenizer>(std::move(tokens)), std::nullopt, stops,
        [this](Piece piece) {
          pieces_.push_back(std::move(piece));
          return more_;
        },
        TextSink::Clock::now());
    return *sink_;
  }
  std::vector<std::string> Texts() const {
    std::vector<std::string> texts;
    for (const Piece& piece : pieces_) texts.push_back(piece.text);
    return texts;
  }
  std::vector<std::vector<int32_t>> Ids() const {
    std::vector<std::vector<int32_t>> ids;
    for (const Piece& piece : pieces_) {
      EXPECT_EQ(piece.ids.size(), piece.logprobs.size());
      ids.push_back(piece.ids);
    }
    return ids;
  }

  std::optional<TextSink> sink_;
  std::vector<Piece> pieces_;
  bool more_ = true;
};

TEST_F(TextSinkTest, HandsOutTokensAsTheyCome) {
  TextSink& sink = Make({"Once", " upon", " a"});
  for (int32_t id : {0, 1, 2}) EXPECT_EQ(sink.OnToken(id, -float(id)), Verdict::kContinue);
  EXPECT_THAT(Texts(), ElementsAre("Once", " upon", " a"));
  EXPECT_THAT(Ids(), ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(2)));
  Result result;
  EXPECT_TRUE(sink.Finish(result).ok());
  EXPECT_EQ(pieces_.size(), 3u);
  EXPECT_EQ(result.text, "Once upon a");
  EXPECT_THAT(result.output_ids, ElementsAre(0, 1, 2));
  EXPECT_THAT(result.logprobs, ElementsAre(0, -1, -2));
  EXPECT_LE(result.first_token_us, result.last_token_us);
}

TEST_F(TextSinkTest, TokensOfACharacterTravelWithIt) {
  TextSink& sink = Make({"a\xE2", "\x82", "\xAC", "b", "\xE2\x82"});
  for (int32_t id = 0; id < 5; ++id) sink.OnToken(id, 0);
  EXPECT_THAT(Texts(), ElementsAre("a", "\xE2\x82\xAC", "b"));
  EXPECT_THAT(Ids(), ElementsAre(IsEmpty(), ElementsAre(0, 1, 2), ElementsAre(3)));
  Result result;
  EXPECT_TRUE(sink.Finish(result).ok());
  EXPECT_EQ(pieces_.back().text, "\xEF\xBF\xBD");  // never completed
  EXPECT_THAT(pieces_.back().ids, ElementsAre(4));
  EXPECT_EQ(result.text,
            "a\xE2\x82\xAC"
            "b\xEF\xBF\xBD");
}

TEST_F(TextSinkTest, AStopStringEndsTheTextBeforeIt) {
  TextSink& sink = Make({"He", "llo", "\nUs", "er", ":"}, {"\nUser:"});
  for (int32_t id = 0; id < 4; ++id) EXPECT_EQ(sink.OnToken(id, 0), Verdict::kContinue);
  EXPECT_THAT(Texts(), ElementsAre("He", "llo"));
  EXPECT_EQ(sink.OnToken(4, 0), Verdict::kStop);
  Result result;
  EXPECT_TRUE(sink.Finish(result).ok());
  EXPECT_EQ(result.text, "Hello");
  EXPECT_THAT(result.output_ids, ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(Texts(), ElementsAre("He", "llo", ""));
  EXPECT_THAT(pieces_.back().ids, ElementsAre(2, 3, 4));
}

TEST_F(TextSinkTest, WhatCouldHaveBeenAStopStringIsReleased) {
  TextSink& sink = Make({"a#", "b", "#"}, {"##"});
  sink.OnToken(0, 0);
  EXPECT_THAT(Texts(), ElementsAre("a"));
  EXPECT_THAT(Ids(), ElementsAre(IsEmpty()));
  sink.OnToken(1, 0);
  EXPECT_THAT(Texts(), ElementsAre("a", "#b"));
  EXPECT_THAT(Ids(), ElementsAre(IsEmpty(), ElementsAre(0, 1)));
  sink.OnToken(2, 0);
  EXPECT_EQ(pieces_.size(), 2u);
  Result result;
  EXPECT_TRUE(sink.Finish(result).ok());
  EXPECT_EQ(result.text, "a#b#");
  EXPECT_THAT(pieces_.back().ids, ElementsAre(2));
}

TEST_F(TextSinkTest, AFullReaderPausesUntilItResumes) {
  TextSink& sink = Make({"a", "b"});
  EXPECT_TRUE(sink.ready());
  more_ = false;
  EXPECT_EQ(sink.OnToken(0, 0), Verdict::kContinue);
  EXPECT_FALSE(sink.ready());
  const TextSink::Clock::time_point before = TextSink::Clock::now();
  EXPECT_LT(sink.last_read(), before);
  sink.Touch();  // it took one of many that wait for it
  EXPECT_GE(sink.last_read(), before);
  EXPECT_FALSE(sink.ready());
  sink.Resume();
  EXPECT_TRUE(sink.ready());
}

TEST_F(TextSinkTest, AResumeDuringThePieceIsNotLost) {
  TextSink* self = nullptr;
  TextSink sink(
      nullptr, std::nullopt, {},
      [&](Piece) {
        self->Resume();  // as another thread may, before the answer
        return false;
      },
      TextSink::Clock::now());
  self = &sink;
  sink.OnToken(0, 0);
  EXPECT_TRUE(sink.ready());
}

TEST_F(TextSinkTest, WithoutATokenizerThereAreIdsAlone) {
  std::vector<Piece> pieces;
  TextSink sink(
      nullptr, std::nullopt, {},
      [&](Piece piece) {
        pieces.push_back(std::move(piece));
        return true;
      },
      TextSink::Clock::now());
  sink.OnToken(7, -1);
  sink.OnToken(9, -2);
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[1].text, "");
  EXPECT_THAT(pieces[1].ids, ElementsAre(9));
  Result result;
  EXPECT_TRUE(sink.Finish(result).ok());
  EXPECT_EQ(pieces.size(), 2u);
  EXPECT_THAT(result.output_ids, ElementsAre(7, 9));
}

TEST_F(TextSinkTest, AReaderThatThrowsFailsItsOwnGeneration) {
  TextSink sink(
      nullptr, std::nullopt, {}, [](Piece) -> bool { throw std::runtime_error("no more room"); },
      TextSink::Clock::now());
  EXPECT_EQ(sink.OnToken(1, 0), Verdict::kStop);
  EXPECT_TRUE(sink.ready());
  Result result;
  const absl::Status status = sink.Finish(result);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no more room"));
}

}  // namespace
}  // namespace dimmer
