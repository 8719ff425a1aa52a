#include "training/data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/util/status.h"
#include "tests/models/test_packages.h"

namespace dimmer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct ParseCase {
  const char* name;
  const char* content;
  DataFormat format;
  std::vector<TextRow> rows;
};

class ParseRowsTest : public testing::TestWithParam<ParseCase> {};

TEST_P(ParseRowsTest, ReadsRows) {
  const auto rows = ParseRows(GetParam().content, GetParam().format, "f.txt");
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(*rows, GetParam().rows);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, ParseRowsTest,
    testing::Values(
        ParseCase{"semicolon", "a b;x\nc;y\n", DataFormat::kAuto, {{"a b", "x", 1}, {"c", "y", 2}}},
        ParseCase{"last_semicolon_cuts", "a; b;x", DataFormat::kAuto, {{"a; b", "x", 1}}},
        ParseCase{"tab_in_text", "a\tb;x", DataFormat::kSemicolon, {{"a\tb", "x", 1}}},
        ParseCase{"crlf_bom_blank_lines",
                  "\xEF\xBB\xBF"
                  "a;x\r\n\r\n  \nb;y\r\n",
                  DataFormat::kAuto,
                  {{"a", "x", 1}, {"b", "y", 4}}},
        ParseCase{"tsv", "a;b\tx\n c \t y \n", DataFormat::kAuto, {{"a;b", "x", 1}, {"c", "y", 2}}},
        ParseCase{"tsv_header", "sentence\tlabel\na\t1\n", DataFormat::kAuto, {{"a", "1", 2}}},
        ParseCase{"tsv_header_order",
                  "id\tLabel\tText\n7\tx\ta b\n",
                  DataFormat::kTsv,
                  {{"a b", "x", 2}}},
        ParseCase{
            "tsv_other_names", "review\tSentiment\na\t1\n", DataFormat::kAuto, {{"a", "1", 2}}},
        ParseCase{"semicolon_header", "Text; label\na;x\n", DataFormat::kAuto, {{"a", "x", 2}}},
        ParseCase{"unicode",
                  "caf\xC3\xA9 \xF0\x9F\x98\x80;x",
                  DataFormat::kAuto,
                  {{"caf\xC3\xA9 \xF0\x9F\x98\x80", "x", 1}}}),
    [](const auto& info) { return info.param.name; });

struct BadCase {
  const char* name;
  std::string content;
  std::vector<std::string> messages;
};

class BadRowsTest : public testing::TestWithParam<BadCase> {};

TEST_P(BadRowsTest, NamesFileAndLine) {
  const auto rows = ParseRows(GetParam().content, DataFormat::kAuto, "f.txt");
  ASSERT_EQ(rows.status().code(), absl::StatusCode::kInvalidArgument);
  for (const std::string& message : GetParam().messages) {
    EXPECT_THAT(std::string(Message(rows.status())), HasSubstr(message));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, BadRowsTest,
    testing::Values(
        BadCase{"no_separator", "a;x\nplain\nb;y", {"1 bad rows", "f.txt:2: no ';'"}},
        BadCase{"empty_text", ";x", {"f.txt:1: the text is empty"}},
        BadCase{"empty_label", "a; \nb;x", {"f.txt:1: the label is empty"}},
        BadCase{"columns", "a\tx\nb\ty\tz", {"f.txt:2: found 3 tab-separated columns, expected 2"}},
        BadCase{"not_utf8", "a\xFFz;x", {"f.txt:1: not valid UTF-8"}},
        BadCase{"overlong", "a\xC0\xAF;x", {"f.txt:1: not valid UTF-8"}},
        BadCase{"surrogate", "\xED\xA0\x80;x", {"f.txt:1: not valid UTF-8"}},
        BadCase{"two", "a\nb", {"2 bad rows", "f.txt:1:", "f.txt:2:"}},
        BadCase{"many",
                std::string("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\n"),
                {"12 bad rows", "and 2 more"}},
        BadCase{"nothing", "\n\n", {"f.txt: no rows"}}),
    [](const auto& info) { return info.param.name; });

TEST(ReadRowsTest, NamesAMissingFile) {
  const TempDirectory directory;
  const auto rows = ReadRows(directory.Sub("absent.txt"), DataFormat::kAuto);
  EXPECT_EQ(rows.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(rows.status())), HasSubstr("absent.txt"));
}

TEST(ParseDataFormatTest, KnowsThreeNames) {
  EXPECT_EQ(*ParseDataFormat("auto"), DataFormat::kAuto);
  EXPECT_EQ(*ParseDataFormat("semicolon"), DataFormat::kSemicolon);
  EXPECT_EQ(*ParseDataFormat("tsv"), DataFormat::kTsv);
  EXPECT_THAT(std::string(Message(ParseDataFormat("csv").status())), HasSubstr("\"csv\""));
}

TEST(CheckFirstLabelTest, RefusesALabelOfTheFirstRowAlone) {
  const std::vector<TextRow> header = {{"Satz", "Gefuehl", 1}, {"a", "x", 2}, {"b", "x", 3}};
  const absl::Status status = CheckFirstLabel(header, "f.txt");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("f.txt:1: the label \"Gefuehl\""));
  EXPECT_TRUE(CheckFirstLabel(std::span(header).subspan(1), "f.txt").ok());
}

TEST(LabelCountsTest, CountsEachLabel) {
  const std::vector<TextRow> rows = {{"a", "y", 1}, {"b", "x", 2}, {"c", "y", 3}};
  EXPECT_EQ(LabelCounts(rows), "x 1, y 2");
}

TEST(CleanRowsTest, DropsDuplicatesConflictsAndExcluded) {
  const std::vector<TextRow> rows = {{"a", "x", 1}, {"b", "x", 2}, {"a", "x", 3}, {"c", "x", 4},
                                     {"c", "y", 5}, {"d", "y", 6}, {"c", "x", 7}};
  const std::vector<TextRow> excluded = {{"d", "x", 1}};
  const Cleaned cleaned = CleanRows(rows, excluded);
  EXPECT_THAT(cleaned.rows, ElementsAre(TextRow{"a", "x", 1}, TextRow{"b", "x", 2}));
  EXPECT_EQ(cleaned.duplicates, 1);
  EXPECT_EQ(cleaned.conflicting, 3);
  EXPECT_EQ(cleaned.excluded, 1);
}

TEST(CleanRowsTest, ComparesWhatAnUncasedModelSees) {
  const std::vector<TextRow> rows = {{"So  happy", "x", 1}, {"so happy", "x", 2},
                                     {"A", "x", 3},         {"a", "y", 4},
                                     {"Held\tout", "x", 5}, {"sohappy", "x", 6}};
  const std::vector<TextRow> excluded = {{"held out", "x", 1}};
  const Cleaned cleaned = CleanRows(rows, excluded);
  EXPECT_THAT(cleaned.rows, ElementsAre(TextRow{"So  happy", "x", 1}, TextRow{"sohappy", "x", 6}));
  EXPECT_EQ(cleaned.duplicates, 1);
  EXPECT_EQ(cleaned.conflicting, 2);
  EXPECT_EQ(cleaned.excluded, 1);
}

TEST(LabelsOfTest, SortsAndJoins) {
  const std::vector<TextRow> rows = {{"a", "y", 1}, {"b", "x", 2}, {"c", "y", 3}};
  EXPECT_THAT(LabelsOf(rows), ElementsAre("x", "y"));
}

std::vector<TextRow> ManyRows(size_t count) {
  std::vector<TextRow> rows;
  for (size_t i = 0; i < count; ++i) rows.push_back({std::to_string(i), i % 2 ? "x" : "y", i + 1});
  return rows;
}

TEST(SplitRowsTest, IsAPartitionInFileOrderFixedByTheSeed) {
  const std::vector<TextRow> rows = ManyRows(100);
  const auto split = SplitRows(rows, 30, 7);
  ASSERT_TRUE(split.ok());
  EXPECT_EQ(split->calibration.size(), 30);
  std::vector<TextRow> merged;
  std::merge(split->training.begin(), split->training.end(), split->calibration.begin(),
             split->calibration.end(), std::back_inserter(merged),
             [](const TextRow& a, const TextRow& b) { return a.line < b.line; });
  EXPECT_EQ(merged, rows);
  EXPECT_EQ(SplitRows(rows, 30, 7)->calibration, split->calibration);
  EXPECT_NE(SplitRows(rows, 30, 8)->calibration, split->calibration);
}

TEST(SplitRowsTest, RefusesWhatLeavesNothing) {
  const std::vector<TextRow> rows = ManyRows(10);
  EXPECT_FALSE(SplitRows(rows, 0, 1).ok());
  EXPECT_FALSE(SplitRows(rows, 10, 1).ok());
  EXPECT_FALSE(SplitRows(rows, 9, 1).ok());  // one training row cannot have both labels
}

}  // namespace
}  // namespace dimmer
