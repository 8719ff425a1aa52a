#include "engine/text/llama2c_tokenizer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/text/token_stream.h"
#include "tests/package/test_files.h"

namespace dimmer {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

constexpr char kStories[] = DIMMER_SHARED_DATA "/weights/stories260K";

struct Piece {
  std::string text;
  float score = 0;
};

template <typename T>
void Append(T value, std::string& bytes) {
  char raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof(T));
  bytes.append(raw, sizeof(T));
}

std::string File(const std::vector<Piece>& pieces, int32_t longest = 7) {
  std::string bytes;
  Append(longest, bytes);
  for (const Piece& piece : pieces) {
    Append(piece.score, bytes);
    Append(static_cast<int32_t>(piece.text.size()), bytes);
    bytes += piece.text;
  }
  return bytes;
}

// The fixed ones, then 259 " t", "he", " the", " ", "t", "h", "e", 266 "a", "aa", "aaa".
std::vector<Piece> Pieces() {
  std::vector<Piece> pieces = {{"<unk>"}, {"\n<s>\n"}, {"\n</s>\n"}};
  for (int byte = 0; byte < 256; ++byte) pieces.push_back({fmt::format("<0x{:02X}>", byte), 0});
  float score = 0;
  for (const char* text : {" t", "he", " the", " ", "t", "h", "e", "a", "aa", "aaa"}) {
    pieces.push_back({text, score--});
  }
  return pieces;
}

class Llama2cTokenizerTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Tokenizer>> LoadBytes(const std::string& bytes) {
    WriteBytes(directory_ / "tokenizer.bin", bytes);
    return LoadTokenizer(directory_.path());
  }
  std::string Refusal(const std::vector<Piece>& pieces, int32_t longest = 7) {
    return std::string(LoadBytes(File(pieces, longest)).status().message());
  }
  TempDirectory directory_;
};

Ids Encode(const Tokenizer& tokenizer, std::string_view text) {
  const auto encoding = tokenizer.Encode(text, std::nullopt, {});
  EXPECT_TRUE(encoding.ok()) << encoding.status();
  return encoding.ok() ? encoding->ids : Ids();
}

TEST_F(Llama2cTokenizerTest, MergesByScoreAndFallsBackToBytes) {
  const auto loaded = LoadBytes(File(Pieces()));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Tokenizer& tokenizer = **loaded;
  EXPECT_EQ(Encode(tokenizer, "the"), (Ids{1, 261}));
  EXPECT_EQ(Encode(tokenizer, " the"), (Ids{1, 262, 261}));
  EXPECT_EQ(Encode(tokenizer, ""), (Ids{1}));
  EXPECT_EQ(Encode(tokenizer, "é\n"), (Ids{1, 262, 3 + 0xc3, 3 + 0xa9, 3 + '\n'}));
  // Equal scores merge from the left: aaaaa is aa aa a first, then there is nothing to merge with.
  EXPECT_EQ(Encode(tokenizer, "aaaaa"), (Ids{1, 262, 267, 268}));
  // What looks like a special token is text.
  EXPECT_EQ(Encode(tokenizer, "<s>"), (Ids{1, 262, 3 + '<', 3 + 's', 3 + '>'}));
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  EXPECT_EQ(tokenizer.TokenOf(261), "▁the");
  EXPECT_EQ(tokenizer.BytesOf(261), " the");
  EXPECT_EQ(tokenizer.BytesOf(3 + 0xc3), "\xc3");
  EXPECT_EQ(tokenizer.BytesOf(1), "");
  EXPECT_EQ(tokenizer.TokenOf(1), "<s>");
}

TEST_F(Llama2cTokenizerTest, DecodingTakesBackTheFirstBlank) {
  const auto tokenizer = LoadBytes(File(Pieces()));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const char* text : {"the", " the", "  the", "é 😀the aa", "\n", "x\xe2\x80\xa8y"}) {
    EXPECT_EQ(Decode(**tokenizer, Encode(**tokenizer, text)), text);
  }
}

TEST_F(Llama2cTokenizerTest, RefusesWhatIsWrongByToken) {
  auto bad = Pieces();
  bad[3 + 65].text = "<0x40>";
  EXPECT_THAT(Refusal(bad), HasSubstr("tokenizer.bin: token 68: found \"<0x40>\", expected "
                                      "\"<0x41>\""));
  bad = Pieces();
  bad[262].text = "he";
  EXPECT_THAT(Refusal(bad), HasSubstr("token he is there twice"));
  bad = Pieces();
  bad[262].score = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(Refusal(bad), HasSubstr("token 262: score: found nan, expected a finite number"));
  bad[262] = {"\xff"};
  EXPECT_THAT(Refusal(bad), HasSubstr("token 262: found bytes that are not UTF-8"));
  bad[262] = {""};
  EXPECT_THAT(Refusal(bad), HasSubstr("token 262: length: found 0, expected 1 to 7"));
  EXPECT_THAT(Refusal(Pieces(), 3), HasSubstr("token 0: length: found 5, expected 1 to 3"));
  EXPECT_THAT(Refusal(Pieces(), 1 << 30), HasSubstr("max_token_length: found 1073741824"));
  bad = Pieces();
  bad.resize(258);
  EXPECT_THAT(Refusal(bad), HasSubstr("found 258 tokens, expected at least 259"));
  WriteBytes(directory_ / "tok2.bin", "");
  EXPECT_THAT(Refusal(Pieces()), HasSubstr("found tok2.bin and tokenizer.bin, expected one"));
}

// Every cut is refused, except between two tokens, and a length that lies never reads past the end.
TEST_F(Llama2cTokenizerTest, SurvivesEveryTruncation) {
  const std::string whole = File(Pieces());
  size_t accepted = 0;
  for (size_t size = 0; size < whole.size(); ++size) {
    accepted += ParseLlama2cTokenizer(whole.substr(0, size), "t.bin").ok() ? 1 : 0;
  }
  EXPECT_EQ(accepted, Pieces().size() - 259);
  for (const int32_t length : {-1, 8, std::numeric_limits<int32_t>::max()}) {
    std::string bad = whole;
    std::memcpy(bad.data() + 8, &length, sizeof(length));
    EXPECT_THAT(std::string(ParseLlama2cTokenizer(bad, "t.bin").status().message()),
                HasSubstr(fmt::format("token 0: length: found {}", length)));
  }
}

// The same vocabulary as the tokenizers library writes it.
json LlamaJson() {
  json vocab = json::object();
  int id = 0;
  for (const Piece& piece : Pieces()) vocab[WithSentencePieceBlanks(piece.text)] = id++;
  vocab.erase("\n<s>\n");
  vocab.erase("\n</s>\n");
  vocab["<s>"] = 1;
  vocab["</s>"] = 2;
  json added = json::array();
  for (const char* name : {"<unk>", "<s>", "</s>"}) {
    added.push_back({{"id", vocab[name]}, {"content", name}, {"special", true}});
  }
  const json start = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const json a = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  return {{"added_tokens", added},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", "▁"}},
              {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}}},
          {"pre_tokenizer", nullptr},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single", {start, a}},
            {"pair", {start, a, a}},
            {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}}}}}}},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", vocab},
            {"merges", {"▁ t", "h e", "▁t he", "a a", "aa a", {"a", "aa"}}}}}};
}

TEST_F(Llama2cTokenizerTest, TokenizerJsonGivesTheSameIds) {
  const auto bin = LoadBytes(File(Pieces()));
  ASSERT_TRUE(bin.ok()) << bin.status();
  WriteBytes(directory_ / "tokenizer.json", LlamaJson().dump());
  const auto file = LoadTokenizer(directory_.path());
  ASSERT_TRUE(file.ok()) << file.status();
  for (const char* text : {"", "the", "  the thé", "aaaaaaaa", " ", "he\nhe", "▁the", "a▁a"}) {
    EXPECT_EQ(Encode(**file, text), Encode(**bin, text)) << text;
    EXPECT_EQ(Decode(**file, Encode(**file, text)), Decode(**bin, Encode(**bin, text)));
  }
  EXPECT_EQ((*file)->bos_id(), 1);
  EXPECT_EQ((*file)->eos_id(), 2);
  // Every part between added tokens gets its blank.
  EXPECT_EQ(Encode(**file, "the</s>the"), (Ids{1, 261, 2, 261}));
}

TEST_F(Llama2cTokenizerTest, MetaspaceSaysWhereBlanksGo) {
  json metaspace = LlamaJson();
  metaspace["normalizer"] = nullptr;
  metaspace["decoder"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"add_prefix_space", true}};
  const auto ids = [&](const json& pre_tokenizer, std::string_view text) {
    metaspace["pre_tokenizer"] = pre_tokenizer;
    WriteBytes(directory_ / "tokenizer.json", metaspace.dump());
    const auto tokenizer = LoadTokenizer(directory_.path());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? Encode(**tokenizer, text) : Ids();
  };
  const json plain = {{"type", "Metaspace"}, {"replacement", "▁"}, {"add_prefix_space", true}};
  EXPECT_EQ(ids(plain, "the the</s>the"), (Ids{1, 261, 261, 2, 261}));
  EXPECT_EQ(ids(plain, " the"), (Ids{1, 261}));
  const auto scheme = [&](const char* name) {
    return json{{"type", "Metaspace"}, {"prepend_scheme", name}, {"split", false}};
  };
  EXPECT_EQ(ids(scheme("first"), "the</s>the"), (Ids{1, 261, 2, 263, 260}));
  EXPECT_EQ(ids(scheme("never"), "the the"), (Ids{1, 263, 260, 261}));
  EXPECT_EQ(ids(scheme("always"), "the</s>the"), (Ids{1, 261, 2, 261}));
}

#define DIMMER_HAS_SHARED_DATA (sizeof(DIMMER_SHARED_DATA) > 1)

class Stories : public testing::TestWithParam<const char*> {};

TEST_P(Stories, TextsComeBackAsTheyWere) {
  const auto tokenizer = LoadTokenizer(GetParam());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 512);
  for (const char* text : {"Once upon a time, there was a little girl named Lily.", "  a\n\nb ",
                           "Führer 我想 😀", "\x01\x7f"}) {
    EXPECT_EQ(Decode(**tokenizer, Encode(**tokenizer, text)), text);
  }
  EXPECT_EQ(Encode(**tokenizer, "Once upon a time"), (Ids{1, 403, 407, 261, 378}));
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Stories);
// Registered only where the public data is.
INSTANTIATE_TEST_SUITE_P(Shared, Stories,
                         testing::ValuesIn(DIMMER_HAS_SHARED_DATA
                                               ? std::vector<const char*>{kStories}
                                               : std::vector<const char*>{}),
                         [](const auto&) { return std::string("Stories260K"); });

}  // namespace
}  // namespace dimmer
