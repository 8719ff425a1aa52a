#include "engine/text/wordpiece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

namespace dimmer {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr char kTokenizers[] = DIMMER_SHARED_DATA "/tokenizers/bert";
constexpr char kGoldens[] = DIMMER_SOURCE_DIR "/tests/golden/wordpiece.json";

const std::vector<std::string>& TinyVocab() {
  static const auto* const kVocab = new std::vector<std::string>{
      "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "light", "un", "##aff", "##able", "a"};
  return *kVocab;
}

std::unique_ptr<WordPiece> Make(std::vector<std::string> vocab, WordPieceOptions options = {}) {
  auto tokenizer = WordPiece::Create(std::move(vocab), std::move(options));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<int32_t> Ids(const Tokenizer& tokenizer, std::string_view text) {
  const auto encoding = tokenizer.Encode(text, std::nullopt, {.add_special_tokens = false});
  EXPECT_TRUE(encoding.ok()) << encoding.status();
  return encoding.ok() ? encoding->ids : std::vector<int32_t>();
}

// Hard texts, pairs and cuts; tests/golden/make_wordpiece_goldens.py made the answers.
TEST(WordPieceTest, AgreesWithTheReferenceOnHardTexts) {
  std::ifstream file(kGoldens);
  ASSERT_TRUE(file) << kGoldens;
  const json goldens = json::parse(file);
  ASSERT_GT(goldens["cases"].size(), 300);
  for (const json& golden : goldens["cases"]) {
    const json& given = golden["options"];
    WordPieceOptions options;
    BertNormalizerOptions& normalizer = options.normalizer;
    normalizer.lowercase = given.value("lowercase", true);
    normalizer.strip_accents = given.value("strip_accents", normalizer.lowercase);
    normalizer.handle_chinese_chars = given.value("handle_chinese_chars", true);
    const auto tokenizer = Make(goldens["vocab"].get<std::vector<std::string>>(), options);
    const std::string text = golden["text"];
    const std::string pair = golden.value("pair", "");
    const bool has_pair = golden.contains("pair");
    const auto encoding =
        tokenizer->Encode(text, has_pair ? std::optional<std::string_view>(pair) : std::nullopt,
                          {.max_tokens = golden.value("max_tokens", size_t{0}), .truncate = true});
    ASSERT_TRUE(encoding.ok()) << encoding.status() << golden;
    EXPECT_EQ(encoding->ids, golden["ids"].get<std::vector<int32_t>>()) << golden;
    if (has_pair) {
      EXPECT_EQ(encoding->type_ids, golden["type_ids"].get<std::vector<int32_t>>()) << golden;
    }
  }
}

#define DIMMER_HAS_SHARED_DATA (sizeof(DIMMER_SHARED_DATA) > 1)

class WordPieceVectors : public testing::TestWithParam<const char*> {};

// Real questions with the ids that the reference tokenizer gave them.
TEST_P(WordPieceVectors, AllAreExact) {
  const auto tokenizer = LoadTokenizer(GetParam());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::ifstream vectors(std::string(GetParam()) + "/vectors.jsonl");
  size_t count = 0;
  for (std::string line; std::getline(vectors, line); ++count) {
    const json vector = json::parse(line);
    ASSERT_EQ(Ids(**tokenizer, vector["text"].get<std::string>()),
              vector["ids"].get<std::vector<int32_t>>())
        << line;
  }
  EXPECT_EQ(count, 8000);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(WordPieceVectors);
// Registered only where the public data is.
INSTANTIATE_TEST_SUITE_P(Shared, WordPieceVectors,
                         testing::ValuesIn(DIMMER_HAS_SHARED_DATA
                                               ? std::vector<const char*>{kTokenizers}
                                               : std::vector<const char*>{}),
                         [](const auto&) { return std::string("Bert"); });

struct BadText {
  const char* name;
  std::string text;
  size_t offset;
};

TEST(WordPieceTest, RefusesInvalidUtf8AndNamesTheOffset) {
  const BadText cases[] = {
      {"continuation alone", "abc\x80", 3},
      {"overlong slash", "\xc0\xaf", 0},
      {"overlong NUL", "ab\xe0\x80\x80", 2},
      {"overlong in four", "a\xf0\x80\x80\x80", 1},
      {"surrogate", "\xc3\xa9\xed\xa0\x80", 2},
      {"above U+10FFFF", "a\xf4\x90\x80\x80", 1},
      {"truncated", "the light \xe4\xb8", 10},
      {"truncated in the middle",
       "\xe4\xb8"
       "a",
       0},
      {"0xff", "0123456789abcdef\xff", 16},
      {"five bytes", "\xf8\x88\x80\x80\x80", 0},
  };
  const auto tokenizer = Make(TinyVocab());
  for (const BadText& bad : cases) {
    for (const bool in_pair : {false, true}) {
      const auto encoding = in_pair ? tokenizer->Encode("ok", bad.text, {})
                                    : tokenizer->Encode(bad.text, std::nullopt, {});
      ASSERT_FALSE(encoding.ok()) << bad.name;
      EXPECT_EQ(encoding.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(encoding.status().message()),
                  testing::EndsWith("at offset " + std::to_string(bad.offset)))
          << bad.name;
      EXPECT_THAT(std::string(encoding.status().message()),
                  testing::StartsWith(in_pair ? "text_pair is not" : "text is not"));
    }
  }
  EXPECT_TRUE(tokenizer->Encode("\xf4\x8f\xbf\xbf \xed\x9f\xbf \xee\x80\x80", {}, {}).ok());
}

TEST(WordPieceTest, TooLongIsAnErrorWithBothLengthsOrCut) {
  const auto tokenizer = Make(TinyVocab());
  const auto refused = tokenizer->Encode("the light the", std::nullopt, {.max_tokens = 4});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("5 tokens, at most 4"));
  const auto fits = tokenizer->Encode("the light the", std::nullopt, {.max_tokens = 5});
  ASSERT_TRUE(fits.ok());
  EXPECT_FALSE(fits->truncated);
  const auto cut =
      tokenizer->Encode("the light the", std::nullopt, {.max_tokens = 4, .truncate = true});
  ASSERT_TRUE(cut.ok());
  EXPECT_TRUE(cut->truncated);
  EXPECT_EQ(cut->ids, (std::vector<int32_t>{2, 5, 6, 3}));
  EXPECT_EQ(tokenizer->Encode("the", "a", {.max_tokens = 2, .truncate = true}).status().code(),
            absl::StatusCode::kInvalidArgument);  // no room for the special tokens alone
}

// What truncation makes of the tokens of both texts, from all of them.
std::vector<int32_t> CutFromAll(std::vector<int32_t> a, std::vector<int32_t> b, bool pair,
                                size_t max_tokens) {
  const size_t room = max_tokens - (pair ? 3 : 2);
  const bool a_is_longer = a.size() > b.size();
  // The longer one loses first; once both are longer than a half, each gets one, the longer one
  // (the second of equals) the odd token.
  std::vector<int32_t>& longer = a_is_longer ? a : b;
  std::vector<int32_t>& shorter = a_is_longer ? b : a;
  if (a.size() + b.size() > room) {
    if (shorter.size() > room / 2) shorter.resize(room / 2);
    longer.resize(room - shorter.size());
  }
  std::vector<int32_t> ids = {2};
  ids.insert(ids.end(), a.begin(), a.end());
  ids.push_back(3);
  if (pair) {
    ids.insert(ids.end(), b.begin(), b.end());
    ids.push_back(3);
  }
  return ids;
}

TEST(WordPieceTest, ACutTextIsTheSameAsIfAllOfItHadBeenTokenized) {
  const auto tokenizer = Make(TinyVocab());
  const std::vector<std::string> words = {
      "the ",   "light ",         "unaffable", " ",   "unaff\u00e9able ", "[MASK]", ". ", "a\t",
      "\u4e2d", "\u0301 \u0323 ", "zzz ",      "[CLS"};
  std::mt19937 random(7);
  const auto text = [&](size_t parts) {
    std::string made;
    for (size_t i = 0; i < parts; ++i) made += words[random() % words.size()];
    return made;
  };
  for (int round = 0; round < 300; ++round) {
    const std::string a = text(random() % (round % 3 == 0 ? 3000 : 30));
    const std::string b = text(random() % (round % 2 == 0 ? 3000 : 30));
    const std::vector<int32_t> all_a = Ids(*tokenizer, a), all_b = Ids(*tokenizer, b);
    for (const size_t max_tokens : {3u, 4u, 5u, 16u, 17u, 512u, 4001u}) {
      const EncodeOptions options{.max_tokens = max_tokens, .truncate = true};
      const auto alone = tokenizer->Encode(a, std::nullopt, options);
      ASSERT_TRUE(alone.ok()) << alone.status();
      ASSERT_EQ(alone->ids, CutFromAll(all_a, {}, false, max_tokens)) << a;
      EXPECT_EQ(alone->truncated, all_a.size() + 2 > max_tokens);
      const auto both = tokenizer->Encode(a, b, options);
      ASSERT_TRUE(both.ok()) << both.status();
      ASSERT_EQ(both->ids, CutFromAll(all_a, all_b, true, max_tokens)) << a << " and " << b;
      EXPECT_EQ(both->truncated, all_a.size() + all_b.size() + 3 > max_tokens);
    }
  }
}

TEST(WordPieceTest, TakesTheLongestPieceAndFallsBackToUnknown) {
  const auto tokenizer = Make(TinyVocab());
  EXPECT_EQ(Ids(*tokenizer, "unaffable"), (std::vector<int32_t>{7, 8, 9}));
  EXPECT_EQ(Ids(*tokenizer, "unaffablex un"), (std::vector<int32_t>{1, 7}));
  EXPECT_EQ(Ids(*tokenizer, ""), std::vector<int32_t>());
  EXPECT_EQ(tokenizer->TokenOf(8), "##aff");
  EXPECT_EQ(tokenizer->TokenOf(-1), "");
  EXPECT_EQ(tokenizer->TokenOf(11), "");
  EXPECT_EQ(tokenizer->BytesOf(8), "aff");
  EXPECT_EQ(tokenizer->BytesOf(11), "");
  EXPECT_EQ(tokenizer->vocab_size(), 11);
}

// A text is its words: what one says alone it says within 100k characters. Anything worse than
// linear in the text would not end here.
TEST(WordPieceTest, LongTextsAreTheirParts) {
  const auto tokenizer = Make(TinyVocab());
  for (const std::string& part :
       {std::string("unaffable "), std::string("[MASK]"), std::string("["), std::string("\u4e2d"),
        std::string("unaff\u00e9able the "), std::string("a. ")}) {
    const std::vector<int32_t> once = Ids(*tokenizer, part);
    std::string text;
    const size_t repeats = 1'000'000 / part.size();
    for (size_t i = 0; i < repeats; ++i) text += part;
    const std::vector<int32_t> all = Ids(*tokenizer, text);
    ASSERT_EQ(all.size(), repeats * once.size());
    EXPECT_TRUE(
        std::equal(once.begin(), once.end(), all.end() - static_cast<ptrdiff_t>(once.size())));
  }
  EXPECT_EQ(Ids(*tokenizer, std::string(1'000'000, 'a')), std::vector<int32_t>{1});
  std::string marks = "a";
  for (int i = 0; i < 300'000; ++i) marks += i % 2 == 0 ? "\u0301" : "\u0323";
  EXPECT_EQ(Ids(*tokenizer, marks), std::vector<int32_t>{10});
}

TEST(WordPieceTest, RefusesABadVocabulary) {
  const auto error = [](std::vector<std::string> vocab) {
    const auto tokenizer = WordPiece::Create(std::move(vocab), {});
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(tokenizer.status().message());
  };
  EXPECT_THAT(error({"[PAD]", "[CLS]", "[SEP]"}), HasSubstr("token [UNK] is missing"));
  EXPECT_THAT(error({"[UNK]", "[CLS]", "[SEP]", "a", "a"}), HasSubstr("token a is there twice"));
  EXPECT_THAT(error({}), HasSubstr("missing"));
}

}  // namespace
}  // namespace dimmer
