#include "engine/text/bpe_merges.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace dimmer {
namespace {

using Ids = std::vector<int32_t>;

// The definition: the pair of the lowest rank, leftmost first, one at a time.
Ids MergeByDefinition(Ids symbols, const std::vector<BpeMerge>& merges) {
  std::map<std::pair<int32_t, int32_t>, BpeMerge> by_pair;
  for (const BpeMerge& merge : merges) by_pair[{merge.left, merge.right}] = merge;
  while (true) {
    const BpeMerge* best = nullptr;
    size_t at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto it = by_pair.find({symbols[i], symbols[i + 1]});
      if (it == by_pair.end() || (best != nullptr && it->second.rank >= best->rank)) continue;
      best = &it->second;
      at = i;
    }
    if (best == nullptr) return symbols;
    symbols[at] = best->result;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

Ids Apply(const BpeMerges& merges, Ids symbols) {
  BpeMerges::Scratch scratch;
  merges.Apply(symbols, scratch);
  return symbols;
}

// Any rules, not only those that training gives: results that are made twice, equal ranks, ranks
// below those of their parts.
TEST(BpeMerges, AgreeWithTheirDefinition) {
  std::mt19937 random(7);
  const auto below = [&](int32_t n) {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(n));
  };
  for (int round = 0; round < 400; ++round) {
    std::vector<BpeMerge> rules;
    const int32_t tokens = 2 + below(12);
    for (int32_t i = below(40); i >= 0; --i) {
      const bool ties = round % 3 == 0;
      rules.push_back({.left = below(tokens),
                       .right = below(tokens),
                       .result = below(tokens),
                       .rank = static_cast<uint32_t>(ties ? random() % 4 : rules.size())});
    }
    const BpeMerges merges(rules);
    for (const size_t length : {0, 1, 2, 3, 31, 32, 33, 34, 150}) {
      Ids symbols(length);
      for (int32_t& symbol : symbols) symbol = random() % 20 == 0 ? -1 : below(3);
      ASSERT_EQ(Apply(merges, symbols), MergeByDefinition(symbols, rules)) << "round " << round;
    }
  }
}

TEST(BpeMerges, TheLaterOfTwoMergesOfAPairCounts) {
  const BpeMerges merges(std::vector<BpeMerge>{{0, 0, 1, 0}, {0, 1, 2, 1}, {0, 0, 3, 2}});
  EXPECT_EQ(Apply(merges, {0, 0}), (Ids{3}));
}

// A megabyte of one letter; what is quadratic would not end here.
TEST(BpeMerges, OneLongWordIsNotQuadratic) {
  std::vector<BpeMerge> rules;
  for (int32_t i = 0; i < 10; ++i) rules.push_back({i, i, i + 1, static_cast<uint32_t>(i)});
  const BpeMerges merges(rules);
  const Ids merged = Apply(merges, Ids((1 << 20) + 5, 0));
  ASSERT_EQ(merged.size(), 1024 + 2);
  EXPECT_EQ(Ids(merged.begin(), merged.begin() + 1024), Ids(1024, 10));
  EXPECT_EQ(Ids(merged.begin() + 1024, merged.end()), (Ids{2, 0}));
}

}  // namespace
}  // namespace dimmer
