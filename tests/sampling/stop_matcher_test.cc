#include "engine/sampling/stop_matcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace dimmer {
namespace {

struct Ended {
  std::string text;
  bool stopped;
  bool operator==(const Ended&) const = default;
  friend std::ostream& operator<<(std::ostream& out, const Ended& ended) {
    return out << ended.text << (ended.stopped ? " (stopped)" : "");
  }
};

Ended Feed(const std::vector<std::string>& stops, const std::vector<std::string>& parts) {
  StopMatcher matcher(stops);
  std::string text;
  for (const std::string& part : parts) text += matcher.Push(part);
  text += matcher.Finish();
  return {text, matcher.stopped()};
}

TEST(StopMatcherTest, EndsTheTextBeforeAStopString) {
  struct Case {
    std::vector<std::string> stops, parts;
    Ended want;
  };
  for (const Case& test : std::vector<Case>{
           {{}, {"abc", "def"}, {"abcdef", false}},
           {{""}, {"abc"}, {"abc", false}},
           {{"def"}, {"abcdefghi"}, {"abc", true}},
           {{"def"}, {"abcd", "e", "fg", "h"}, {"abc", true}},
           {{"def"}, {"abcd", "e"}, {"abcde", false}},          // held back, then released
           {{"def"}, {"ded", "ed", "ef"}, {"dede", true}},      // a new start inside an old one
           {{"aab"}, {"a", "a", "a", "a", "b"}, {"aa", true}},  // overlaps itself
           {{"xyz", "c"}, {"ab", "cd"}, {"ab", true}},
           {{"bcd", "c"}, {"abcd"}, {"ab", true}},  // "c" is complete first
           {{"c", "bc"}, {"abcd"}, {"a", true}},    // both at once: the longest
           {{"\n\n", "END"}, {"one\n", "two\n", "\nEND"}, {"one\ntwo", true}},
           {{"a"}, {"a"}, {"", true}},
           {{"\xC3\xA9"}, {"caf", "\xC3\xA8", "\xC3\xA9!"}, {"caf\xC3\xA8", true}},
       }) {
    EXPECT_EQ(Feed(test.stops, test.parts), test.want)
        << testing::PrintToString(test.stops) << " in " << testing::PrintToString(test.parts);
  }
}

TEST(StopMatcherTest, ReleasesWhatCanBeNoPartOfAStopString) {
  StopMatcher matcher({"\nUser:", "##"});
  EXPECT_EQ(matcher.Push("Hello"), "Hello");
  EXPECT_EQ(matcher.Push(" you\nUs"), " you");
  EXPECT_EQ(matcher.held_back(), 3u);
  EXPECT_EQ(matcher.Push(""), "");
  EXPECT_EQ(matcher.Push("ed\n"), "\nUsed");
  EXPECT_EQ(matcher.held_back(), 1u);
  EXPECT_EQ(matcher.Push("#"), "\n");
  EXPECT_EQ(matcher.Push("1"), "#1");
  EXPECT_EQ(matcher.held_back(), 0u);
  EXPECT_EQ(matcher.Push("a##b"), "a");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.Push("more"), "");
  EXPECT_EQ(matcher.Finish(), "");
}

// The plain reading of the rule: the first byte at which a stop string ends.
Ended Reference(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop)) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcherTest, AgreesWithThePlainRuleHoweverTheTextIsCut) {
  std::mt19937 random(3);
  const auto word = [&](size_t least, size_t most) {
    std::string text(least + random() % (most - least + 1), 'a');
    for (char& c : text) c = char('a' + random() % 2);
    return text;
  };
  int stopped = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    std::vector<std::string> stops(random() % 4);
    for (std::string& stop : stops) stop = word(1, 9);
    const std::string text = word(0, 30);
    StopMatcher matcher(stops);
    std::string released;
    for (size_t at = 0; at < text.size();) {
      const size_t part = 1 + random() % 5;
      released += matcher.Push(std::string_view(text).substr(at, part));
      at += part;
      // Neither more nor less is held back than must be.
      const std::string seen = text.substr(0, at);
      if (matcher.stopped()) break;
      size_t must = 0;
      for (const std::string& stop : stops) {
        for (size_t length = 1; length < stop.size(); ++length) {
          if (seen.ends_with(stop.substr(0, length))) must = std::max(must, length);
        }
      }
      ASSERT_EQ(matcher.held_back(), must);
      ASSERT_EQ(released.size() + must, seen.size());
    }
    released += matcher.Finish();
    const Ended want = Reference(stops, text);
    ASSERT_EQ((Ended{released, matcher.stopped()}), want);
    stopped += want.stopped;
  }
  EXPECT_GT(stopped, 5000);
}

}  // namespace
}  // namespace dimmer
