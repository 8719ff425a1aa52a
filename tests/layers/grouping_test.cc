#include "engine/layers/grouping.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace dimmer {
namespace {

using testing::ElementsAre;

TEST(GroupByExpert, ListsRowsAscendingPerExpert) {
  const std::vector<uint8_t> mask = {1, 0, 1,  //
                                     0, 0, 1,  //
                                     1, 0, 0};
  const std::vector<uint32_t> rows = {4, 5, 9};
  std::vector<uint32_t> offsets(4, 77), grouped(9);
  EXPECT_EQ(GroupByExpert(mask, rows, 3, offsets, grouped), 4u);
  EXPECT_THAT(offsets, ElementsAre(0, 2, 2, 4));
  EXPECT_THAT(std::span(grouped).first(4), ElementsAre(4, 9, 4, 5));
}

TEST(GroupByExpert, EmptyBatch) {
  std::vector<uint32_t> offsets(3, 77);
  EXPECT_EQ(GroupByExpert({}, {}, 2, offsets, {}), 0u);
  EXPECT_THAT(offsets, ElementsAre(0, 0, 0));
}

TEST(GroupByExpert, OneExpertTakesAll) {
  const std::vector<uint8_t> mask = {1, 1};
  const std::vector<uint32_t> rows = {0, 1};
  std::vector<uint32_t> offsets(2), grouped(2);
  EXPECT_EQ(GroupByExpert(mask, rows, 1, offsets, grouped), 2u);
  EXPECT_THAT(grouped, ElementsAre(0, 1));
}

TEST(GroupByExpert, IsTheTransposeOfTheMask) {
  std::mt19937 random(1);
  for (size_t experts : {1, 7, 8, 9, 31, 96}) {
    const size_t tokens = 23;
    std::vector<uint8_t> mask(tokens * experts);
    for (uint8_t& bit : mask) bit = random() % 5 == 0;
    std::vector<uint32_t> rows(tokens);
    for (uint32_t t = 0; t < tokens; ++t) rows[t] = 3 * t;
    std::vector<uint32_t> offsets(experts + 1), grouped(mask.size());
    const size_t total = GroupByExpert(mask, rows, experts, offsets, grouped);
    std::vector<uint32_t> want;
    for (size_t n = 0; n < experts; ++n) {
      EXPECT_EQ(offsets[n], want.size());
      for (size_t t = 0; t < tokens; ++t) {
        if (mask[t * experts + n] != 0) want.push_back(rows[t]);
      }
    }
    grouped.resize(total);
    EXPECT_EQ(grouped, want);
  }
}

}  // namespace
}  // namespace dimmer
