#include "training/checkpoint_files.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "engine/package/json_fields.h"
#include "engine/text/tokenizer.h"
#include "tests/models/test_packages.h"
#include "training/blocks.h"
#include "training/bpe_trainer.h"
#include "training/tokenizer_writer.h"

namespace dimmer {
namespace {

namespace fs = std::filesystem;

class TokenizerFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(from_);
    fs::create_directories(to_);
    WordCounts counts;
    CountWords("the hen and the other hen", counts);
    const auto training = TrainBpe(counts, 260, 2, nullptr);
    ASSERT_TRUE(training.ok()) << training.status();
    ASSERT_TRUE(WriteGpt2Tokenizer(from_, *training).ok());
  }
  void Write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteTextFile(from_ + "/" + name, text).ok());
  }
  std::unique_ptr<Tokenizer> Load(const std::string& folder) {
    auto tokenizer = LoadTokenizer(folder);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
  }
  const TempDirectory directory_;
  const std::string from_ = directory_.Sub("from"), to_ = directory_.Sub("to");
};

TEST_F(TokenizerFilesTest, AddedTokensGoAlong) {
  fs::remove(from_ + "/tokenizer.json");
  const auto plain = Load(from_);
  const int64_t next = static_cast<int64_t>(plain->vocab_size());
  Write("added_tokens.json", fmt::format("{{\"<|im_end|>\": {}}}", next));
  Write("tokenizer_config.json", R"({"eos_token": "<|im_end|>"})");
  const absl::Status copied = CopyTokenizer(from_, to_);
  ASSERT_TRUE(copied.ok()) << copied;
  EXPECT_EQ(Load(to_)->eos_id(), next);
}

TEST_F(TokenizerFilesTest, AStrayVocabularyReplacesNoTokenizer) {
  Write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n");
  const absl::Status copied = CopyTokenizer(from_, to_);
  ASSERT_TRUE(copied.ok()) << copied;
  EXPECT_EQ(Load(to_)->vocab_size(), Load(from_)->vocab_size());
}

TEST_F(TokenizerFilesTest, AFolderWithoutATokenizerIsRefused) {
  const std::string empty = directory_.Sub("empty");
  fs::create_directories(empty);
  EXPECT_TRUE(absl::IsNotFound(CopyTokenizer(empty, to_)));
}

TEST_F(TokenizerFilesTest, ATrainedModelSaysWhatEndsADocument) {
  const auto tokenizer = Load(from_);
  const std::optional<int32_t> mark = tokenizer->bos_id();  // <|endoftext|>
  ASSERT_TRUE(mark.has_value());
  const auto ends = [&](std::vector<int32_t> end_ids) {
    const auto found = EndsOf(*tokenizer, end_ids);
    EXPECT_TRUE(found.ok()) << found.status();
    return std::pair(found->before, found->after);
  };
  EXPECT_EQ(ends({}), std::pair(*mark, *mark));
  EXPECT_EQ(ends({5}), std::pair(*mark, 5));
  EXPECT_EQ(ends({5, *mark}), std::pair(*mark, *mark));  // as llama2.c's models
}

}  // namespace
}  // namespace dimmer
