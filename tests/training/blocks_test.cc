#include "training/blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace dimmer {
namespace {

// Document i is `length` ids of its own, between two 0s.
TokenizedDocument Document(int32_t first, size_t length) {
  TokenizedDocument document;
  document.ids.push_back(0);
  for (size_t i = 0; i < length; ++i) document.ids.push_back(first + static_cast<int32_t>(i));
  document.ids.push_back(0);
  document.bytes = 3 * length;
  return document;
}

TEST(WindowsTest, PredictEveryIdOnce) {
  for (const size_t length : {1, 2, 7, 8, 9, 30}) {
    const TokenizedDocument document = Document(1, length);
    std::vector<int32_t> predicted;
    for (const std::vector<int32_t>& window : Windows(document, 8)) {
      EXPECT_GE(window.size(), 2);
      EXPECT_LE(window.size(), 8);
      predicted.insert(predicted.end(), window.begin() + 1, window.end());
    }
    EXPECT_EQ(predicted, std::vector<int32_t>(document.ids.begin() + 1, document.ids.end()));
  }
}

TEST(BlockStreamTest, PredictsTheNextIdOfTheStream) {
  std::vector<TokenizedDocument> documents;
  for (int32_t i = 0; i < 20; ++i) documents.push_back(Document(1 + 10 * i, 5));
  BlockStream stream(documents, 8, 1);
  EXPECT_EQ(stream.tokens(), 20 * 6);
  EXPECT_EQ(stream.rows(), 15);
  const std::span<const Example> blocks = stream.Epoch(0);
  ASSERT_EQ(blocks.size(), 15);
  std::map<int32_t, int> count;
  for (const Example& block : blocks) {
    ASSERT_EQ(block.ids.size(), 8);
    ASSERT_EQ(block.next_ids.size(), 8);
    EXPECT_TRUE(std::equal(block.ids.begin() + 1, block.ids.end(), block.next_ids.begin()));
    for (size_t i = 0; i < 8; ++i) {
      ++count[block.next_ids[i]];
      if (block.ids[i] == 0) {
        EXPECT_EQ(block.next_ids[i] % 10, 1);  // a document begins
      } else {
        EXPECT_EQ(block.next_ids[i], block.ids[i] % 10 == 5 ? 0 : block.ids[i] + 1);
      }
    }
  }
  // 120 ids fill 15 blocks exactly: each is predicted once an epoch, in whatever order.
  for (int32_t i = 0; i < 20; ++i) {
    for (int32_t j = 1; j <= 5; ++j) EXPECT_EQ(count[10 * i + j], 1);
  }
}

TEST(BlockStreamTest, AnEpochIsAFunctionOfItsNumber) {
  std::vector<TokenizedDocument> documents;
  for (int32_t i = 0; i < 30; ++i) documents.push_back(Document(1 + 10 * i, 4 + i % 5));
  BlockStream stream(documents, 16, 1);
  const auto ids = [&](uint64_t epoch) {
    std::vector<int32_t> all;
    for (const Example& block : stream.Epoch(epoch)) {
      all.insert(all.end(), block.ids.begin(), block.ids.end());
    }
    return all;
  };
  const std::vector<int32_t> third = ids(3);
  EXPECT_NE(ids(4), third);
  EXPECT_EQ(ids(3), third);
}

}  // namespace
}  // namespace dimmer
