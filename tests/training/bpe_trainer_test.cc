#include "training/bpe_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "engine/text/byte_alphabet.h"

namespace dimmer {
namespace {

using testing::ElementsAre;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr size_t kFirst = 257;  // tokens before the first that is merged

BpeTraining Train(const WordCounts& counts, uint64_t vocab_size, uint64_t min_count = 1) {
  auto training = TrainBpe(counts, vocab_size, min_count, nullptr);
  EXPECT_TRUE(training.ok()) << training.status();
  return training.ok() ? *std::move(training) : BpeTraining();
}

// The definition, counting everything anew for every token.
std::vector<std::pair<std::string, std::string>> MergesByDefinition(const WordCounts& counts,
                                                                    size_t merges) {
  BpeTraining first = Train({}, kFirst);
  std::vector<std::string>& tokens = first.tokens;
  std::map<std::string, size_t> ids;
  for (size_t i = 0; i < tokens.size(); ++i) ids[tokens[i]] = i;
  std::vector<std::pair<std::vector<size_t>, uint64_t>> words;
  for (const auto& [word, count] : counts) {
    std::vector<size_t> symbols;
    for (const char c : word) symbols.push_back(ids.at(BytesToLetters({&c, 1})));
    words.emplace_back(symbols, count);
  }
  std::vector<std::pair<std::string, std::string>> result;
  while (result.size() < merges) {
    std::map<std::pair<size_t, size_t>, uint64_t> pairs;
    for (const auto& [symbols, count] : words) {
      for (size_t i = 0; i + 1 < symbols.size(); ++i) pairs[{symbols[i], symbols[i + 1]}] += count;
    }
    if (pairs.empty()) break;
    const auto best =
        *std::max_element(pairs.begin(), pairs.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; });
    const auto [left, right] = best.first;
    result.emplace_back(tokens[left], tokens[right]);
    tokens.push_back(tokens[left] + tokens[right]);
    for (auto& [symbols, count] : words) {
      std::vector<size_t> merged;
      for (size_t i = 0; i < symbols.size(); ++i) {
        if (i + 1 < symbols.size() && symbols[i] == left && symbols[i + 1] == right) {
          merged.push_back(tokens.size() - 1);
          ++i;
        } else {
          merged.push_back(symbols[i]);
        }
      }
      symbols = merged;
    }
  }
  return result;
}

TEST(CountWordsTest, CountsWordsOfTextsThatEndAtTheEndOfText) {
  WordCounts counts;
  CountWords("a cat<|endoftext|>a cat's\n<|endoftext|><|endoftext|>", counts);
  EXPECT_THAT(counts,
              UnorderedElementsAre(Pair("a", 2), Pair(" cat", 2), Pair("'s", 1), Pair("\n", 1)));
  CountWords("", counts);
  EXPECT_EQ(counts.size(), 4);
}

TEST(BpeTrainerTest, MergesTheMostFrequentPairFirst) {
  const BpeTraining training =
      Train({{"low", 5}, {"lower", 2}, {"newest", 6}, {"widest", 3}}, kFirst + 4);
  EXPECT_THAT(training.merges,
              ElementsAre(Pair("e", "s"), Pair("es", "t"), Pair("l", "o"), Pair("lo", "w")));
  ASSERT_EQ(training.tokens.size(), kFirst + 4);
  EXPECT_EQ(training.tokens[0], "<|endoftext|>");
  EXPECT_EQ(training.tokens[1], "!");
  EXPECT_EQ(training.tokens[kFirst - 1], "Ń");  // U+0143, the last letter of a byte
  EXPECT_EQ(training.tokens[kFirst + 1], "est");
}

TEST(BpeTrainerTest, EndsWherePairsAreTooRare) {
  EXPECT_EQ(Train({{"abc", 1}, {"ab", 1}}, 1000, 2).tokens.size(), kFirst + 1);
  EXPECT_EQ(Train({{"abc", 1}}, 1000, 1).tokens.size(), kFirst + 2);
  EXPECT_EQ(Train({}, 1000).tokens.size(), kFirst);
  // Overlapping pairs count as often as they can be read, as in the reference.
  EXPECT_THAT(Train({{"aaa", 1}}, 1000, 2).merges, ElementsAre(Pair("a", "a")));
}

// Many ties, runs of one letter, and counts that fall while they wait.
TEST(BpeTrainerTest, AgreesWithItsDefinition) {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    WordCounts counts;
    const size_t letters = 2 + random() % 4;
    for (size_t n = 1 + random() % 30; n > 0; --n) {
      std::string word;
      for (size_t length = 1 + random() % 12; length > 0; --length) {
        word += static_cast<char>('a' + random() % letters);
      }
      counts[word] += 1 + random() % 4;
    }
    const BpeTraining training = Train(counts, kFirst + 40);
    // Two pairs may spell one token; there the definition above goes another way.
    const auto wanted = MergesByDefinition(counts, training.merges.size());
    for (size_t i = 0; i < training.merges.size(); ++i) {
      ASSERT_EQ(training.merges[i], wanted[i]) << "round " << round << ", merge " << i;
      const std::string token = training.merges[i].first + training.merges[i].second;
      if (training.tokens[kFirst + i] != token) break;
    }
  }
}

TEST(BpeTrainerTest, RefusesSizesOutOfRange) {
  for (const uint64_t size : {0UL, 256UL, (1UL << 20) + 1}) {
    EXPECT_THAT(std::string(TrainBpe({}, size, 1, nullptr).status().message()),
                testing::HasSubstr("expected 257 to 1048576"));
  }
}

}  // namespace
}  // namespace dimmer
