// Plain text for language models, as documents: read, cleaned and split.
//
// Thread safety: pure functions.
#ifndef DIMMER_TRAINING_DOCUMENTS_H_
#define DIMMER_TRAINING_DOCUMENTS_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "training/bpe_trainer.h"  // kEndOfText

namespace dimmer {

// Cuts a text into documents:
//  - where a line is <|endoftext|> (or the mark stands anywhere), documents are what lies between
//    the marks;
//  - else paragraphs (runs of lines that are not blank) are joined until they have kDocumentBytes
//    bytes; a text without blank lines is cut at the first line end after four times as many.
// White space around a document is dropped, and empty documents with it. InvalidArgument: `content`
// is not UTF-8 (`file` and the byte offset), or holds no document.
inline constexpr size_t kDocumentBytes = 2000;
absl::StatusOr<std::vector<std::string>> CutDocuments(std::string_view content,
                                                      const std::string& file);
// NotFound: no such file.
absl::StatusOr<std::vector<std::string>> ReadDocuments(const std::string& path);

struct DocumentSplit {
  std::vector<std::string> training;
  std::vector<std::string> validation;   // early stopping and choices
  std::vector<std::string> calibration;  // the curve of loss against FLOPs, the default tau
  std::vector<std::string> test;         // reported, and nothing else
  uint64_t documents = 0;                // before anything was dropped
  uint64_t duplicates = 0;               // equal to an earlier document
  uint64_t excluded = 0;                 // equal to one of `excluded`
};

// Deals documents out; `held_out` is the share of each of the three held-out parts. Where a
// document goes depends on its text and the seed alone, so that a file that grows, or a part of it,
// never moves a document from one part to another. All parts stay in file order. InvalidArgument: a
// part got no document.
absl::StatusOr<DocumentSplit> SplitDocuments(std::span<const std::string> documents,
                                             std::span<const std::string> excluded, double held_out,
                                             uint64_t seed);

uint64_t TextBytes(std::span<const std::string> documents);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_DOCUMENTS_H_
