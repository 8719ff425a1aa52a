#include "engine/text/gpt2_words.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace dimmer {
namespace {

using Words = std::vector<std::string>;

Words Split(std::string_view text) {
  Words words;
  while (!text.empty()) {
    const size_t length = FirstGpt2Word(text);
    words.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return words;
}

// Wanted: what Python's `regex` finds with GPT-2's pattern.
TEST(Gpt2Words, SplitsAsThePatternDoes) {
  const struct {
    const char* text;
    Words words;
  } cases[] = {
      {"Hello world", {"Hello", " world"}},
      {"  Hello", {" ", " Hello"}},
      {"a  b   ", {"a", " ", " b", "   "}},
      {"a\n\nb", {"a", "\n", "\n", "b"}},
      {"a\n b", {"a", "\n", " b"}},
      {" \n", {" \n"}},
      {"\t\tx", {"\t", "\t", "x"}},
      {"don't we'll I'VE", {"don", "'t", " we", "'ll", " I", "'", "VE"}},
      {"''s", {"''", "s"}},
      {" 's", {" '", "s"}},
      {"'stop", {"'s", "top"}},
      {"x'r", {"x", "'", "r"}},
      {"abc123!?", {"abc", "123", "!?"}},
      {" 12 ?!", {" 12", " ?!"}},
      {"Führer½²x", {"Führer", "½²", "x"}},
      {"a\xc2\xa0"
       "b",
       {"a", "\xc2\xa0", "b"}},  // U+00A0, not taken by " ?"
      {"a\xe3\x80\x80"
       "b",
       {"a", "\xe3\x80\x80", "b"}},          // U+3000
      {"a\xc2\x85\n", {"a", "\xc2\x85\n"}},  // U+0085
      {"\xe2\x80\x8b"
       "a",
       {"\xe2\x80\x8b", "a"}},           // U+200B is no white space
      {"e\xcc\x81", {"e", "\xcc\x81"}},  // a combining mark is no letter
      {"我在1天", {"我在", "1", "天"}},
      {"😀😀 a", {"😀😀", " a"}},
      {" ", {" "}},
      {"'", {"'"}},
  };
  for (const auto& c : cases) EXPECT_EQ(Split(c.text), c.words) << c.text;
}

TEST(Gpt2Words, LettersThatCameWithUnicode15AreNone) {
  EXPECT_EQ(Gpt2ClassOf(0x31350), Gpt2Class::kOther);  // CJK extension H
  EXPECT_EQ(Gpt2ClassOf(0x3134f - 5), Gpt2Class::kLetter);
  EXPECT_EQ(Gpt2ClassOf(0x1d2c0), Gpt2Class::kOther);   // Kaktovik numerals
  EXPECT_EQ(Gpt2ClassOf(0x1d2e0), Gpt2Class::kNumber);  // Mayan ones, older
  EXPECT_EQ(Gpt2ClassOf(0x110000), Gpt2Class::kOther);
}

}  // namespace
}  // namespace dimmer
