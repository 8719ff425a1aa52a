#include "engine/package/json_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/package/test_files.h"

namespace dimmer {
namespace {

using testing::HasSubstr;

std::string ErrorOf(const auto& result) {
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(result.status().message());
}

TEST(ParseJsonTest, ReadsWhatTheLibraryReads) {
  const std::string text =
      R"({"a": [1, -2, 3.5, true, null, "\u00e9", {}, []], "b": {"c": {"d": []}}, "e": ""})";
  for (const std::string& document :
       {text, std::string("[]"), std::string("7"), std::string("\"x\""), std::string(" null ")}) {
    const auto json = ParseJson(document, "f");
    ASSERT_TRUE(json.ok()) << json.status();
    EXPECT_EQ(*json, nlohmann::json::parse(document));
  }
}

TEST(ParseJsonTest, NamesTheFileAndTheByte) {
  EXPECT_THAT(ErrorOf(ParseJson(R"({"a": 1,})", "dir/f.json")), HasSubstr("dir/f.json: "));
  EXPECT_THAT(ErrorOf(ParseJson(R"({"a": 1,})", "f")), HasSubstr("at byte 9"));
  EXPECT_THAT(ErrorOf(ParseJson("", "f")), HasSubstr("syntax error at byte 1"));
  EXPECT_THAT(ErrorOf(ParseJson("{} {}", "f")), HasSubstr("syntax error"));
  EXPECT_THAT(ErrorOf(ParseJson("{\"a\": NaN}", "f")), HasSubstr("syntax error"));
  EXPECT_THAT(ErrorOf(ParseJson("[1e999]", "f")), HasSubstr("syntax error"));
}

TEST(ParseJsonTest, RefusesWhatTheLibraryLetsPass) {
  EXPECT_THAT(ErrorOf(ParseJson(R"({"a": {"b": 1, "b": 1}})", "f")), HasSubstr("key \"b\" twice"));
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(ParseJson(nested(64), "f").ok());
  EXPECT_THAT(ErrorOf(ParseJson(nested(65), "f")), HasSubstr("deeper than 64"));
  EXPECT_THAT(ErrorOf(ParseJson(std::string(1'000'000, '['), "f")), HasSubstr("deeper than 64"));
  std::string many = "[0";
  for (int i = 0; i < (4 << 20); ++i) many += ",0";
  EXPECT_THAT(ErrorOf(ParseJson(many + "]", "f")), HasSubstr("more than 4194304 values"));
}

TEST(JsonFieldsTest, ErrorsNameKeyFoundAndExpected) {
  const auto json = nlohmann::json::parse(
      R"({"i": 7, "big": 18446744073709551615, "n": 0.5, "s": "x", "b": true, "null": null,
          "v": [1, "x"], "o": {"deep": 1}, "os": [{}, 3]})");
  const auto fields = JsonFields::Of(json, "f");
  ASSERT_TRUE(fields.ok());
  EXPECT_EQ(*fields->Int("i", 0, 7), 7);
  EXPECT_EQ(*fields->Int("none", 0, 7, 3), 3);
  EXPECT_EQ(*fields->Int("null", 0, 7, 3), 3);
  EXPECT_EQ(*fields->Number("i", 0, 7), 7);
  EXPECT_EQ(*fields->String("s"), "x");
  EXPECT_EQ(*fields->Bool("b"), true);
  EXPECT_TRUE(fields->Has("i"));
  EXPECT_FALSE(fields->Has("null"));
  EXPECT_EQ(ErrorOf(fields->Int("i", 0, 6)), "f: i: found 7, expected an integer in [0, 6]");
  EXPECT_EQ(ErrorOf(fields->Int("none", 0, 6)),
            "f: none: found nothing, expected an integer in [0, 6]");
  EXPECT_THAT(ErrorOf(fields->Int("big", 0, INT64_MAX)), HasSubstr("found 18446744073709551615"));
  EXPECT_THAT(ErrorOf(fields->Int("n", 0, 6, 1)), HasSubstr("found 0.5"));
  EXPECT_EQ(ErrorOf(fields->Number("s", 0, 1)), "f: s: found \"x\", expected a number in [0, 1]");
  EXPECT_THAT(ErrorOf(fields->Number("n", 0.6, 1)), HasSubstr("found 0.5"));
  EXPECT_EQ(ErrorOf(fields->String("i")), "f: i: found 7, expected a string");
  EXPECT_EQ(ErrorOf(fields->Bool("s")), "f: s: found \"x\", expected true or false");
  EXPECT_EQ(ErrorOf(fields->Numbers("v")), "f: v[1]: found \"x\", expected a finite number");
  EXPECT_EQ(ErrorOf(fields->Object("v")), "f: v: found an array of 2, expected an object");
  EXPECT_EQ(ErrorOf(fields->Objects("os")), "f: os[1]: found 3, expected an object");
  EXPECT_EQ(ErrorOf(fields->Object("o")->Int("deep", 2, 3)),
            "f: o: deep: found 1, expected an integer in [2, 3]");
  EXPECT_EQ(fields->Object("o")->OnlyKeys({"deep"}), absl::OkStatus());
  EXPECT_EQ(fields->Object("o")->OnlyKeys({"a", "b"}).message(),
            "f: o: deep: found an unknown key, expected only a, b");
}

TEST(JsonFieldsTest, MessagesStayShortAndPrintable) {
  const nlohmann::json json = {{"s", std::string(1'000'000, '\xc3')}, {"a", std::string(99, 'y')}};
  const auto fields = JsonFields::Of(json, "f");
  for (const char* key : {"s", "a"}) {
    const std::string error = ErrorOf(fields->Int(key, 0, 1));
    EXPECT_LT(error.size(), 200);
    for (const char c : error) EXPECT_TRUE(c >= ' ' && c <= '~');
  }
}

TEST(TextFileTest, RoundTripsAndRefuses) {
  const TempDirectory directory;
  const std::string path = directory / "x";
  EXPECT_EQ(ReadTextFile(path).status().code(), absl::StatusCode::kNotFound);
  for (const std::string& text :
       {std::string("a\0b", 3), std::string(), std::string(300'000, 'x')}) {
    ASSERT_EQ(WriteTextFile(path, text), absl::OkStatus());
    EXPECT_EQ(*ReadTextFile(path), text);
  }
  EXPECT_THAT(ErrorOf(ReadTextFile(path, 10)),
              HasSubstr("found 300000 bytes, expected at most 10"));
  EXPECT_THAT(ErrorOf(ReadTextFile(directory.path())), HasSubstr("found a directory"));
  EXPECT_EQ(ReadTextFile(path + "/y").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(WriteTextFile(directory / "none/x", "").code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(WriteTextFile(directory.path(), "").ok());
  EXPECT_EQ(ReadBytes(path).size(), 300'000);
}

}  // namespace
}  // namespace dimmer
