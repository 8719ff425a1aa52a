#include "engine/text/wordpiece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace dimmer {
namespace {

constexpr char kTokenizers[] = DIMMER_SHARED_DATA "/tokenizers/bert";

// Real questions with the ids that the reference tokenizer gave them.
TEST(WordPieceVectors, AllAreExact) {
  if (!std::filesystem::exists(kTokenizers)) GTEST_SKIP() << "no folder of public test data";
  const auto tokenizer = LoadTokenizer(kTokenizers);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::ifstream vectors(std::string(kTokenizers) + "/vectors.jsonl");
  EncodeOptions options;
  options.add_special_tokens = false;
  size_t count = 0;
  for (std::string line; std::getline(vectors, line); ++count) {
    const nlohmann::json vector = nlohmann::json::parse(line);
    const auto encoding =
        (*tokenizer)->Encode(vector["text"].get<std::string>(), std::nullopt, options);
    ASSERT_TRUE(encoding.ok()) << encoding.status();
    ASSERT_EQ(encoding->ids, vector["ids"].get<std::vector<int32_t>>()) << line;
  }
  EXPECT_EQ(count, 8000u);
}

}  // namespace
}  // namespace dimmer
