// GPT-2's tokenizers from their files: exact ids, what the files may say, and refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/text/byte_alphabet.h"
#include "engine/text/token_stream.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"
#include "tests/package/test_files.h"

namespace dimmer {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

constexpr char kGpt2[] = DIMMER_SHARED_DATA "/tokenizers/gpt2";
constexpr int32_t kEnd = 256, kHe = 257, kBlankThe = 260;

std::string Letter(int byte) {
  std::string letter;
  AppendUtf8(ByteAlphabet()[static_cast<size_t>(byte)], letter);
  return letter;
}

// The 256 bytes as ids 0 to 255, then <|endoftext|>, he, th, the, Ġthe.
json Vocab() {
  json vocab = json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[Letter(byte)] = byte;
  int id = kEnd;
  for (const char* token : {"<|endoftext|>", "he", "th", "the", "Ġthe"}) vocab[token] = id++;
  return vocab;
}

json TokenizerJson() {
  json added = json::array();
  added.push_back({{"id", kEnd}, {"content", "<|endoftext|>"}, {"special", true}});
  const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  return {{"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", byte_level},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", ""},
            {"vocab", Vocab()},
            {"merges", {"t h", "th e", "h e", "Ġ the"}}}}};
}

class BpeFilesTest : public testing::Test {
 protected:
  void Write(const char* name, const std::string& text) { WriteBytes(directory_ / name, text); }
  void WriteVocabAndMerges(const std::string& merges = "#version: 0.2\nt h\nth e\nh e\nĠ the\n") {
    Write("vocab.json", Vocab().dump());
    Write("merges.txt", merges);
  }
  std::unique_ptr<Tokenizer> Load() {
    auto tokenizer = LoadTokenizer(directory_.path());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
  }
  Ids Encode(std::string_view text, std::optional<std::string_view> pair = std::nullopt) {
    const auto tokenizer = Load();
    if (tokenizer == nullptr) return {};
    const auto encoding = tokenizer->Encode(text, pair, {});
    EXPECT_TRUE(encoding.ok()) << encoding.status();
    return encoding.ok() ? encoding->ids : Ids();
  }
  std::string Refusal() { return std::string(LoadTokenizer(directory_.path()).status().message()); }
  TempDirectory directory_;
};

TEST_F(BpeFilesTest, AllThreeFormsGiveTheSameIds) {
  const Ids wanted = {kBlankThe, 'n', 259, kEnd, kHe, '\n', 0xc3, 0xa9};
  const std::string text = " thenthe<|endoftext|>he\né";
  const Ids split = {kBlankThe, 'n', 259, kEnd, kHe, '\n', 0xc3, 0xa9};
  Write("tokenizer.json", TokenizerJson().dump());
  EXPECT_EQ(Encode(text), split);
  std::filesystem::remove(directory_ / "tokenizer.json");
  WriteVocabAndMerges();
  EXPECT_EQ(Encode(text), wanted);
  std::filesystem::rename(directory_ / "vocab.json", directory_ / "encoder.json");
  std::filesystem::rename(directory_ / "merges.txt", directory_ / "vocab.bpe");
  EXPECT_EQ(Encode(text), wanted);
}

TEST_F(BpeFilesTest, TokensTurnBackIntoBytes) {
  Write("tokenizer.json", TokenizerJson().dump());
  const auto tokenizer = Load();
  EXPECT_EQ(tokenizer->TokenOf(kBlankThe), "Ġthe");
  EXPECT_EQ(tokenizer->BytesOf(kBlankThe), " the");
  EXPECT_EQ(tokenizer->BytesOf(0), std::string_view("\0", 1));
  EXPECT_EQ(tokenizer->BytesOf(0xff), "\xff");
  EXPECT_EQ(tokenizer->BytesOf(kEnd), "");
  EXPECT_EQ(tokenizer->BytesOf(-1), "");
  EXPECT_EQ(tokenizer->BytesOf(261), "");
  EXPECT_EQ(tokenizer->bos_id(), kEnd);
  EXPECT_EQ(tokenizer->eos_id(), kEnd);
  EXPECT_EQ(tokenizer->vocab_size(), 261);
  EXPECT_EQ(Decode(*tokenizer, Encode(" the é\n\t 😀 theN")), " the é\n\t 😀 theN");
}

// Both are found in a text before it is cut into words, whether or not they are listed as added.
TEST_F(BpeFilesTest, StartAndEndOfTheConfigAreSpecial) {
  WriteVocabAndMerges();
  EXPECT_EQ(Encode("the"), Ids{259});
  Write("added_tokens.json", R"({"he": 257})");  // of the vocabulary, as some checkpoints have it
  Write("tokenizer_config.json", R"({"bos_token": "th", "eos_token": "he"})");
  EXPECT_EQ(Encode("the"), (Ids{258, 'e'}));
  EXPECT_EQ(Encode("xhe"), (Ids{'x', kHe}));
  const auto tokenizer = Load();
  EXPECT_EQ(tokenizer->BytesOf(258), "");
  EXPECT_EQ(tokenizer->BytesOf(kHe), "");
}

TEST_F(BpeFilesTest, ConfigAndPostProcessorAddTokensAndBlanks) {
  WriteVocabAndMerges();
  Write("tokenizer_config.json", R"({"add_prefix_space": true, "add_bos_token": true,
                                     "bos_token": {"content": "<|endoftext|>"}})");
  EXPECT_EQ(Encode("the"), (Ids{kEnd, kBlankThe}));
  EXPECT_EQ(Encode(" the", "he"), (Ids{kEnd, kBlankThe, kEnd, ' ', kHe}));
  json file = TokenizerJson();
  file["pre_tokenizer"]["add_prefix_space"] = true;
  const json end = {{"SpecialToken", {{"id", "E"}, {"type_id", 0}}}};
  const json a = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json b = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  file["post_processor"] = {{"type", "Sequence"},
                            {"processors",
                             {{{"type", "ByteLevel"}},
                              {{"type", "TemplateProcessing"},
                               {"single", {a, end}},
                               {"pair", {a, end, b}},
                               {"special_tokens", {{"E", {{"id", "E"}, {"ids", {kEnd}}}}}}}}}};
  Write("tokenizer.json", file.dump());
  Write("tokenizer_config.json", "{}");
  EXPECT_EQ(Encode("the"), (Ids{kBlankThe, kEnd}));
  EXPECT_EQ(Encode("the", "he"), (Ids{kBlankThe, kEnd, ' ', kHe}));
  // As in transformers, GPT2Tokenizer's own setting outranks the file's.
  Write("tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer"})");
  EXPECT_EQ(Encode("the"), (Ids{259, kEnd}));
}

TEST_F(BpeFilesTest, AddedTokensExtendTheVocabulary) {
  json file = TokenizerJson();
  file["added_tokens"].push_back({{"id", 261}, {"content", "the end"}, {"special", false}});
  Write("tokenizer.json", file.dump());
  EXPECT_EQ(Encode("the the end"), (Ids{259, ' ', 261}));
  EXPECT_EQ(Load()->BytesOf(261), "the end");
  std::filesystem::remove(directory_ / "tokenizer.json");
  WriteVocabAndMerges();
  Write("added_tokens.json", R"({"the end": 261})");
  EXPECT_EQ(Encode("the the end"), (Ids{259, ' ', 261}));
  Write("added_tokens.json", R"({"the end": 262})");
  EXPECT_THAT(Refusal(), HasSubstr("the end: found id 262, expected the next, 261"));
}

TEST_F(BpeFilesTest, LimitsCountAllTokens) {
  Write("tokenizer.json", TokenizerJson().dump());
  const auto tokenizer = Load();
  const auto refused = tokenizer->Encode("a b c", std::nullopt, {.max_tokens = 4});
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("5 tokens, at most 4"));
  const auto cut = tokenizer->Encode("a b c", "d", {.max_tokens = 4, .truncate = true});
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->ids, (Ids{'a', ' ', 'b', 'd'}));
  EXPECT_EQ(cut->type_ids, (Ids{0, 0, 0, 1}));
  EXPECT_TRUE(cut->truncated);
  EXPECT_THAT(std::string(tokenizer->Encode("a\xff", std::nullopt, {}).status().message()),
              HasSubstr("0xff at offset 1"));
}

TEST_F(BpeFilesTest, RefusesATokenizerJsonThatIsWrongByName) {
  const struct {
    const char* pointer;
    json value;
    const char* expected;
  } cases[] = {
      {"/model/merges/1", "th", "merges[1]: found \"th\", expected two tokens"},
      {"/model/merges/1", 7, "merges[1]: found 7, expected two tokens"},
      {"/model/merges/1", "th x", "merges[1]: found thx, expected a token of the vocabulary"},
      {"/model/merges/1", "qq e", "merges[1]: found qq, expected a token of the vocabulary"},
      {"/model/merges", "t h", "merges: found string, expected an array"},
      {"/model/vocab/he", 300, "he: found id 300, expected each of 0 to 260 once"},
      {"/model/vocab/he", 258, "expected each of 0 to 260 once"},
      {"/model/vocab/he", -1, "he: found id -1"},
      {"/model/vocab", json::array(), "vocab: found an array of 0, expected an object"},
      {"/model/dropout", 0.5, "dropout: found 0.5, expected null"},
      {"/model/byte_fallback", true, "byte_fallback: found true with ByteLevel"},
      {"/model/ignore_merges", true, "ignore_merges: found true, expected false"},
      {"/model/end_of_word_suffix", "</w>", "end_of_word_suffix: found </w>, expected null"},
      {"/model/unk_token", "[UNK]", "unk_token: found [UNK], expected a token"},
      {"/pre_tokenizer/type", "Split", "type: found Split, expected ByteLevel or Metaspace"},
      {"/pre_tokenizer/use_regex", false, "use_regex: found false, expected true"},
      {"/pre_tokenizer", nullptr, "normalizer: found none and no pre_tokenizer"},
      {"/normalizer", {{"type", "NFC"}}, "type: found NFC, expected Prepend or Replace"},
      {"/post_processor/type", "RobertaProcessing", "found RobertaProcessing, expected ByteLevel"},
      {"/added_tokens/0/lstrip", true, "lstrip: found true for <|endoftext|>, expected false"},
      {"/added_tokens/0/id", 257, "found <|endoftext|> with id 257, expected"},
  };
  for (const auto& c : cases) {
    json file = TokenizerJson();
    file[json::json_pointer(c.pointer)] = c.value;
    Write("tokenizer.json", file.dump());
    EXPECT_THAT(Refusal(), HasSubstr("tokenizer.json: ")) << c.pointer;
    EXPECT_THAT(Refusal(), HasSubstr(c.expected)) << c.pointer;
  }
}

TEST_F(BpeFilesTest, RefusesAVocabularyWithoutAllBytes) {
  json file = TokenizerJson();
  json& vocab = file["model"]["vocab"];
  vocab["odd"] = vocab[Letter(10)];
  vocab.erase(Letter(10));
  Write("tokenizer.json", file.dump());
  EXPECT_THAT(Refusal(), HasSubstr("found no token for byte 0x0a and no unknown token"));
  // With a token for what is unknown it does.
  file["model"]["unk_token"] = "<|endoftext|>";
  Write("tokenizer.json", file.dump());
  EXPECT_EQ(Encode("a\nb"), (Ids{'a', kEnd, 'b'}));
}

TEST_F(BpeFilesTest, RefusesMergesThatAreWrongByLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"#version: 0.2\nt h\nthe\n", "merges.txt:3: found \"the\", expected two tokens"},
      {"#version: 0.2\nt h e\n", "merges.txt:2: found \"t h e\", expected two tokens"},
      {"t h\nth q\n", "merges.txt:2: found thq, expected a token of the vocabulary"},
      {" h\n", "merges.txt:1: found \" h\", expected two tokens"}};
  for (const auto& [merges, expected] : cases) {
    WriteVocabAndMerges(merges);
    EXPECT_THAT(Refusal(), HasSubstr(expected));
  }
  Write("vocab.json", "{\"a\": 0, \"a\": 1}");
  EXPECT_THAT(Refusal(), HasSubstr("vocab.json: found key \"a\" twice"));
  std::filesystem::remove(directory_ / "merges.txt");
  EXPECT_THAT(Refusal(), HasSubstr("nor vocab.json with merges.txt"));
}

// No crash and no token out of range, whatever a file lacks or has too much of.
TEST_F(BpeFilesTest, SurvivesDamage) {
  std::mt19937 random(3);
  json small = TokenizerJson();
  const std::string text = small.dump();
  size_t loaded = 0;
  for (int round = 0; round < 1500; ++round) {
    std::string bad = text;
    for (uint32_t n = random() % 3; n > 0; --n) {
      const size_t at = random() % bad.size();
      if (random() % 2 == 0) {
        bad[at] = static_cast<char>(random());
      } else {
        bad.erase(at, 1 + random() % 40);
      }
    }
    if (random() % 8 == 0) bad.resize(random() % bad.size());
    Write("tokenizer.json", bad);
    const auto tokenizer = LoadTokenizer(directory_.path());
    if (!tokenizer.ok()) continue;
    ++loaded;
    const auto encoding = (*tokenizer)->Encode(" the he<|endoftext|>é\n", std::nullopt, {});
    if (!encoding.ok()) continue;
    for (const int32_t id : encoding->ids) {
      ASSERT_LT(static_cast<size_t>(id), (*tokenizer)->vocab_size());
    }
    Decode(**tokenizer, encoding->ids);
  }
  EXPECT_GT(loaded, 300);
}

#define DIMMER_HAS_SHARED_DATA (sizeof(DIMMER_SHARED_DATA) > 1)

class Gpt2Vectors : public testing::TestWithParam<const char*> {};

// Hard strings with the ids that GPT-2's own tokenizer gave them, and back to text.
TEST_P(Gpt2Vectors, AllAreExact) {
  const auto tokenizer = LoadTokenizer(GetParam());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::ifstream vectors(std::string(GetParam()) + "/hard_cases.jsonl");
  size_t count = 0;
  for (std::string line; std::getline(vectors, line); ++count) {
    const json vector = json::parse(line);
    const std::string text = vector["text"];
    const auto encoding = (*tokenizer)->Encode(text, std::nullopt, {});
    ASSERT_TRUE(encoding.ok()) << encoding.status();
    EXPECT_EQ(encoding->ids, vector["ids"].get<Ids>()) << line;
    EXPECT_EQ(Decode(**tokenizer, encoding->ids), text);
  }
  EXPECT_EQ(count, 47);
  EXPECT_EQ((*tokenizer)->eos_id(), 50256);
}

// A megabyte without a word's end; what is quadratic would not end here.
TEST_P(Gpt2Vectors, LongWordsDoNotTakeForever) {
  const auto tokenizer = LoadTokenizer(GetParam());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const char* unit : {"a", " ", "ab", "é", "\n"}) {
    std::string text;
    while (text.size() < 1 << 20) text += unit;
    const auto encoding = (*tokenizer)->Encode(text, std::nullopt, {});
    ASSERT_TRUE(encoding.ok()) << encoding.status();
    EXPECT_EQ(Decode(**tokenizer, encoding->ids), text);
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Gpt2Vectors);
// Registered only where the public data is.
INSTANTIATE_TEST_SUITE_P(Shared, Gpt2Vectors,
                         testing::ValuesIn(DIMMER_HAS_SHARED_DATA ? std::vector<const char*>{kGpt2}
                                                                  : std::vector<const char*>{}),
                         [](const auto&) { return std::string("Gpt2"); });

}  // namespace
}  // namespace dimmer
