#include "server/ctl/text.h"

#include <gtest/gtest.h>

namespace dimmer::ctl {
namespace {

TEST(TextTest, PrintableKeepsNothingThatSteersATerminal) {
  EXPECT_EQ(Printable("caf\u00e9 \u4f60"), "caf\u00e9 \u4f60");
  EXPECT_EQ(Printable("a\033[2Jb\nc\x7f"), "a?[2Jb?c?");
  EXPECT_EQ(Printable("\u202eabc"), "?abc");  // right-to-left override
  EXPECT_EQ(Printable("\u009bm"), "?m");      // a control sequence in one character
  EXPECT_EQ(Printable("x\xff\xc3"), "x??");
}

TEST(TextTest, ColumnsAreCounted) {
  EXPECT_EQ(Width("abc"), 3u);
  EXPECT_EQ(Width("\u4f60"), 2u);
  EXPECT_EQ(Width("e\u0301"), 1u);  // e and a combining accent
  EXPECT_EQ(Left("\u4f60", 3), "\u4f60 ");
  EXPECT_EQ(Right("ab", 4), "  ab");
}

TEST(TextTest, ClipFitsAndShowsIt) {
  EXPECT_EQ(Clip("abcdef", 6), "abcdef");
  EXPECT_EQ(Clip("abcdef", 4), "abc~");
  EXPECT_EQ(Clip("\u4f60\u4f60", 3), "\u4f60~");
  EXPECT_EQ(Clip("abc", 0), "");
  for (size_t width = 0; width < 14; ++width) {
    const Line line = {{"abc", kBold}, {"", kPlain}, {"\u4f60\u4f60\u4f60", kDim}, {"xyz", kPlain}};
    EXPECT_LE(Width(Clip(line, width)), width);
  }
  EXPECT_EQ(Paint(Clip(Line{{"ab", kBold}, {"cd", kDim}}, 3), false), "ab~");
  EXPECT_EQ(Paint(Clip(Line{{"ab", kBold}, {"cd", kDim}}, 2), false), "a~");
}

TEST(TextTest, Spread) {
  EXPECT_EQ(Paint(Spread({{"ab", kPlain}}, {{"cd", kPlain}}, 6), false), "ab  cd");
  EXPECT_EQ(Paint(Spread({{"ab", kPlain}}, {{"cd", kPlain}}, 4), false), "ab");
}

TEST(TextTest, PaintWithAndWithoutColor) {
  const Line line = {{"a", kPlain}, {"b", kLight}, {"c", kDim}};
  EXPECT_EQ(Paint(line, false), "abc");
  EXPECT_EQ(Paint(line, true), "a\033[1;38;5;214mb\033[0m\033[2mc\033[0m");
  EXPECT_EQ(Paint(std::vector<Line>{{{"a  ", kPlain}}, {}}, false), "a\n\n");
}

TEST(TextTest, Units) {
  EXPECT_EQ(Flops(999), "999");
  EXPECT_EQ(Flops(299.4e6), "299.4 M");
  EXPECT_EQ(Flops(299.4e6, "FLOPs"), "299.4 MFLOPs");
  EXPECT_EQ(Flops(150, "FLOPs"), "150 FLOPs");
  EXPECT_EQ(Flops(26.04e9), "26.0 G");
  EXPECT_EQ(Rate(0), "0.0");
  EXPECT_EQ(Rate(12345), "12.3 k");
  EXPECT_EQ(Seconds(0.00087), "870 us");
  EXPECT_EQ(Seconds(0.0041), "4.1 ms");
  EXPECT_EQ(Seconds(0.25), "250 ms");
  EXPECT_EQ(Seconds(1.2), "1.20 s");
  EXPECT_EQ(Bytes(1023), "1023 bytes");
  EXPECT_EQ(Bytes(87.5 * 1024 * 1024), "87.5 MiB");
  EXPECT_EQ(Percent(0.4731, 1), "47.3%");
  EXPECT_EQ(Interval(0, 0.5), "[0, 0.5]");
}

TEST(TextTest, Bars) {
  EXPECT_EQ(Bar(0, 4, true), "");
  EXPECT_EQ(Bar(1, 4, true), "████");
  EXPECT_EQ(Bar(2, 4, true), "████");
  EXPECT_EQ(Bar(0.53125, 4, true), "██▏");
  EXPECT_EQ(Bar(0.0001, 4, true), "▏");  // some is never none
  EXPECT_EQ(Bar(0.5, 4, false), "##");
  EXPECT_EQ(Bar(0.0001, 4, false), "#");
}

TEST(TextTest, Sparklines) {
  EXPECT_EQ(Sparkline({0, 5, 10}, 10, 8, true), "▁▅█");
  EXPECT_EQ(Sparkline({0, 5, 10}, 10, 2, true), "▅█");  // the last ones
  EXPECT_EQ(Sparkline({0, 10}, 10, 8, false), "_#");
  EXPECT_EQ(Sparkline({0, 0}, 0, 8, false), "__");
}

}  // namespace
}  // namespace dimmer::ctl
