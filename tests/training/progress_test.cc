#include "training/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>

namespace dimmer {
namespace {

using testing::HasSubstr;
using testing::Not;

// Everything that was written to a temporary file.
std::string Contents(std::FILE* file) {
  std::fflush(file);
  std::rewind(file);
  std::string text;
  std::array<char, 4096> buffer;
  for (size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), file)) > 0;) {
    text.append(buffer.data(), n);
  }
  return text;
}

std::string Recorded(bool terminal) {
  std::FILE* file = std::tmpfile();
  {
    Progress progress(file, terminal);
    progress.Start("sparsify", "steps", 200, 50);
    progress.Update(100, "loss 0.5");
    progress.Note("epoch 1");
    progress.Finish();
  }
  std::string text = Contents(file);
  std::fclose(file);
  return text;
}

TEST(ProgressTest, WritesPlainLinesWithoutATerminal) {
  const std::string text = Recorded(false);
  EXPECT_THAT(text, Not(HasSubstr("\r")));
  EXPECT_THAT(text, HasSubstr("50/200 steps"));
  EXPECT_THAT(text, HasSubstr("epoch 1\n"));
  EXPECT_THAT(text, HasSubstr("200/200 steps"));
  EXPECT_TRUE(text.ends_with("\n"));
}

TEST(ProgressTest, RedrawsOneLineOnATerminal) {
  const std::string text = Recorded(true);
  EXPECT_THAT(text, HasSubstr("\r"));
  EXPECT_THAT(text, HasSubstr("loss 0.5"));
  EXPECT_TRUE(text.ends_with("\n"));
}

TEST(BarTest, FillsUp) {
  EXPECT_EQ(Bar(0, 10), "[....................]   0%");
  EXPECT_EQ(Bar(5, 10), "[##########..........]  50%");
  EXPECT_EQ(Bar(10, 10), "[####################] 100%");
  EXPECT_EQ(Bar(11, 10), "[####################] 100%");
  EXPECT_EQ(Bar(0, 0), "[....................]   0%");
}

TEST(DurationTest, PicksItsUnits) {
  EXPECT_EQ(Duration(0.4), "0s");
  EXPECT_EQ(Duration(59), "59s");
  EXPECT_EQ(Duration(185), "3m05s");
  EXPECT_EQ(Duration(3725), "1h02m");
  EXPECT_EQ(Duration(-1), "0s");
}

}  // namespace
}  // namespace dimmer
