#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/text/tokenizer.h"
#include "tests/package/test_files.h"

namespace dimmer {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

constexpr char kVocabTxt[] =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nlight\nLight\ncafe\ncafé\n中\n文\n";

json TokenizerJson() {
  json vocab = json::object();
  int id = 0;
  for (const char* token : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "light", "Light"}) {
    vocab[token] = id++;
  }
  const json start = {{"SpecialToken", {{"id", "[CLS]"}, {"type_id", 0}}}};
  const auto sequence = [](const char* name, int type) {
    return json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  const auto end = [](int type) {
    return json{{"SpecialToken", {{"id", "[SEP]"}, {"type_id", type}}}};
  };
  json added = json::array();
  added.push_back({{"id", 3}, {"content", "[SEP]"}, {"special", true}, {"normalized", false}});
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", {{"type", "BertNormalizer"}, {"lowercase", true}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single", {start, sequence("A", 0), end(0)}},
            {"pair", {start, sequence("A", 0), end(0), sequence("B", 1), end(1)}}}},
          {"model", {{"type", "WordPiece"}, {"unk_token", "[UNK]"}, {"vocab", vocab}}}};
}

class TokenizerFilesTest : public testing::Test {
 protected:
  void Write(const char* name, const std::string& text) { WriteBytes(directory_ / name, text); }
  Ids Encode(std::string_view text) {
    const auto tokenizer = LoadTokenizer(directory_.path());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    if (!tokenizer.ok()) return {};
    const auto encoding = (*tokenizer)->Encode(text, std::nullopt, {});
    EXPECT_TRUE(encoding.ok()) << encoding.status();
    return encoding.ok() ? encoding->ids : Ids();
  }
  // Loads with `change` applied to the JSON at `pointer` (null erases it); the refusal.
  absl::Status LoadWith(const char* pointer, const json& value) {
    json file = TokenizerJson();
    const json::json_pointer at(pointer);
    if (value.is_null()) {
      file[at.parent_pointer()].erase(at.back());
    } else {
      file[at] = value;
    }
    Write("tokenizer.json", file.dump());
    return LoadTokenizer(directory_.path()).status();
  }
  TempDirectory directory_;
};

TEST_F(TokenizerFilesTest, SaysWhatWasLookedFor) {
  const auto status = LoadTokenizer(directory_.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("neither tokenizer.json nor vocab.txt"));
}

TEST_F(TokenizerFilesTest, VocabTxtAloneIsUncased) {
  Write("vocab.txt", kVocabTxt);
  EXPECT_EQ(Encode("Light CAFÉ 中文[SEP]"), (Ids{2, 5, 7, 9, 10, 3, 3}));
}

TEST_F(TokenizerFilesTest, VocabTxtMayEndInAnyWay) {
  for (const char* vocab :
       {"[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\nlight\r\n", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nlight"}) {
    Write("vocab.txt", vocab);
    EXPECT_EQ(Encode("light"), (Ids{2, 4, 3}));
  }
}

TEST_F(TokenizerFilesTest, TokenizerConfigDecides) {
  Write("vocab.txt", kVocabTxt);
  Write("tokenizer_config.json", R"({"do_lower_case": false})");
  EXPECT_EQ(Encode("Light café cafe"), (Ids{2, 6, 8, 7, 3}));
  Write("tokenizer_config.json", R"({"do_lower_case": true, "strip_accents": false})");
  EXPECT_EQ(Encode("Light CAFÉ"), (Ids{2, 5, 8, 3}));
  Write("tokenizer_config.json", R"({"tokenize_chinese_chars": false, "strip_accents": null})");
  EXPECT_EQ(Encode("中文 中 CAFÉ"), (Ids{2, 1, 9, 7, 3}));
  Write("tokenizer_config.json",
        R"({"sep_token": {"content": "[MASK]", "lstrip": false}, "cls_token": "[PAD]"})");
  EXPECT_EQ(Encode("light"), (Ids{0, 5, 4}));
  Write("tokenizer_config.json", R"({"do_lower_case": "yes"})");
  EXPECT_THAT(std::string(LoadTokenizer(directory_.path()).status().message()),
              HasSubstr("tokenizer_config.json: do_lower_case: found \"yes\""));
  Write("tokenizer_config.json", R"({"cls_token": "<s>"})");
  EXPECT_THAT(std::string(LoadTokenizer(directory_.path()).status().message()),
              HasSubstr("vocab.txt: vocabulary: token <s> is missing"));
}

TEST_F(TokenizerFilesTest, TokenizerJsonOutranksVocabTxt) {
  Write("vocab.txt", "[UNK]\n[CLS]\n[SEP]\n");
  Write("tokenizer.json", TokenizerJson().dump());
  EXPECT_EQ(Encode("LIGHT[SEP]light"), (Ids{2, 5, 3, 5, 3}));
  // Only what is listed as added is matched in the text; [MASK] is "[", "mask", "]" here.
  EXPECT_EQ(Encode("[MASK]"), (Ids{2, 1, 1, 1, 3}));
}

TEST_F(TokenizerFilesTest, ABertTokenizersConfigOutranksTokenizerJson) {
  Write("tokenizer.json", TokenizerJson().dump());
  Write("tokenizer_config.json", R"({"tokenizer_class": "BertTokenizer", "do_lower_case": false})");
  EXPECT_EQ(Encode("Light"), (Ids{2, 6, 3}));
  Write("tokenizer_config.json",
        R"({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": false})");
  EXPECT_EQ(Encode("Light"), (Ids{2, 5, 3}));
}

TEST_F(TokenizerFilesTest, RefusesKindsItDoesNotKnowByName) {
  const struct {
    const char* pointer;
    json value;
    const char* expected;
  } cases[] = {
      {"/model/type", "Unigram", "model: type: found Unigram, expected WordPiece or BPE"},
      {"/normalizer/type", "NFKC", "normalizer: type: found NFKC, expected BertNormalizer"},
      {"/normalizer", nullptr, "normalizer: found nothing"},
      {"/pre_tokenizer/type", "ByteLevel", "found ByteLevel, expected BertPreTokenizer"},
      {"/post_processor/type", "RobertaProcessing", "post_processor: found a RobertaProcessing"},
      {"/post_processor/single/0", {{"Sequence", {{"id", "A"}}}}, "TemplateProcessing of another"},
      {"/added_tokens/0/lstrip", true, "lstrip: found true for [SEP]"},
      {"/added_tokens/0/id", 2, "found [SEP] with id 2, expected"},
      {"/added_tokens/0/id", 99, "found [SEP] with id 99, expected"},
      {"/added_tokens/0/id", -1, "id: found -1"},
      {"/model/vocab/light", 9, "light: found id 9, expected each of 0 to 6 once"},
      {"/model/vocab/light", 6, "expected each of 0 to 6 once"},
      {"/model/vocab/light", "5", "light: found id \"5\""},
      {"/model/vocab", json::object(), "found [SEP] with id 3, expected"},
      {"/model/unk_token", "<unk>", "token <unk> is missing"},
      {"/model/max_input_chars_per_word", 0, "max_input_chars_per_word: found 0"},
  };
  for (const auto& c : cases) {
    const absl::Status status = LoadWith(c.pointer, c.value);
    EXPECT_FALSE(status.ok()) << c.pointer;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.expected)) << c.pointer;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json")) << c.pointer;
  }
}

TEST_F(TokenizerFilesTest, SurvivesEveryTruncation) {
  const std::string whole = TokenizerJson().dump();
  for (size_t size = 0; size < whole.size(); size += 3) {
    Write("tokenizer.json", whole.substr(0, size));
    ASSERT_EQ(LoadTokenizer(directory_.path()).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace dimmer
