#include "training/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "engine/util/status.h"

namespace dimmer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Cut(const std::string& text) {
  const auto documents = CutDocuments(text, "file.txt");
  EXPECT_TRUE(documents.ok()) << documents.status();
  return documents.ok() ? *documents : std::vector<std::string>();
}

TEST(CutDocumentsTest, CutsAtTheMark) {
  EXPECT_THAT(Cut("One.\n\nStill one.\n<|endoftext|>\n\n Two. \n<|endoftext|>\n<|endoftext|>\n"),
              ElementsAre("One.\n\nStill one.", "Two."));
  EXPECT_THAT(Cut("\xEF\xBB\xBF"
                  "A<|endoftext|>B"),
              ElementsAre("A", "B"));
}

TEST(CutDocumentsTest, JoinsParagraphsWithoutMarks) {
  const std::string paragraph(kDocumentBytes / 2, 'a');
  const std::string text = paragraph + "\n \t\n" + paragraph + "\n\n" + "short\n\nlast\n";
  EXPECT_THAT(Cut(text), ElementsAre(paragraph + "\n \t\n" + paragraph, "short\n\nlast"));
}

TEST(CutDocumentsTest, CutsATextWithoutBlankLinesToo) {
  std::string text;
  for (size_t i = 0; i < kDocumentBytes; ++i) text += "line of text\n";
  const std::vector<std::string> documents = Cut(text);
  EXPECT_GE(documents.size(), 3);
  size_t bytes = 0;
  for (const std::string& document : documents) {
    EXPECT_LE(document.size(), 4 * kDocumentBytes + 13);
    EXPECT_TRUE(document.starts_with("line") && document.ends_with("text"));
    bytes += document.size() + 1;
  }
  EXPECT_EQ(bytes, text.size());
}

TEST(CutDocumentsTest, SaysWhatIsWrong) {
  EXPECT_THAT(std::string(Message(CutDocuments("abc\xFF", "f.txt").status())),
              HasSubstr("f.txt: byte 3"));
  EXPECT_THAT(std::string(Message(CutDocuments(" \n\n", "f.txt").status())), HasSubstr("no text"));
}

std::vector<std::string> Numbered(int count) {
  std::vector<std::string> documents;
  for (int i = 0; i < count; ++i) documents.push_back("document " + std::to_string(i));
  return documents;
}

TEST(SplitDocumentsTest, LosesNothingAndLeaksNothing) {
  std::vector<std::string> documents = Numbered(1000);
  documents.push_back("document 5");
  documents.push_back("secret");
  const std::vector<std::string> excluded = {"secret", "document 7"};
  const auto split = SplitDocuments(documents, excluded, 0.1, 1);
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_EQ(split->documents, 1002);
  EXPECT_EQ(split->duplicates, 1);
  EXPECT_EQ(split->excluded, 2);
  std::set<std::string> all;
  size_t count = 0;
  for (const auto* part :
       {&split->training, &split->validation, &split->calibration, &split->test}) {
    all.insert(part->begin(), part->end());
    count += part->size();
  }
  EXPECT_EQ(all.size(), 999);
  EXPECT_EQ(count, 999);
  for (const auto* part : {&split->validation, &split->calibration, &split->test}) {
    EXPECT_NEAR(static_cast<double>(part->size()), 100, 30);
  }
}

TEST(SplitDocumentsTest, AGrowingFileMovesNoDocument) {
  const auto small = SplitDocuments(Numbered(400), {}, 0.1, 1);
  const auto large = SplitDocuments(Numbered(800), {}, 0.1, 1);
  ASSERT_TRUE(small.ok() && large.ok());
  for (const std::string& document : small->test) {
    EXPECT_NE(std::find(large->test.begin(), large->test.end(), document), large->test.end());
  }
  const auto other = SplitDocuments(Numbered(400), {}, 0.1, 2);
  ASSERT_TRUE(other.ok());
  EXPECT_NE(other->test, small->test);
}

TEST(SplitDocumentsTest, RefusesAPartWithoutDocuments) {
  EXPECT_THAT(std::string(Message(SplitDocuments(Numbered(3), {}, 0.01, 1).status())),
              HasSubstr("--held-out"));
}

}  // namespace
}  // namespace dimmer
