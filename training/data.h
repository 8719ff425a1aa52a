// Labelled text files: `text;label` lines, or tab-separated values.
//
// Thread safety: pure functions.
#ifndef DIMMER_TRAINING_DATA_H_
#define DIMMER_TRAINING_DATA_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dimmer {

struct TextRow {
  std::string text;
  std::string label;
  uint64_t line = 0;  // in its file, from 1

  bool operator==(const TextRow&) const = default;
};

enum class DataFormat : uint8_t {
  kAuto,       // TSV if the first line has a tab, else semicolon
  kSemicolon,  // text;label, cut at the last semicolon
  kTsv,        // text<TAB>label, or any columns under a header that names a text column (text,
               // sentence, review ...) and a label column (label, sentiment, class ...)
};

// InvalidArgument: not one of "auto", "semicolon", "tsv".
absl::StatusOr<DataFormat> ParseDataFormat(std::string_view name);

// Reads rows in file order; a first line that names its columns is a header, in both formats; blank
// lines are skipped, text and label are trimmed. InvalidArgument lists bad rows (no separator,
// empty text or label, not UTF-8) as "file:line: why", the first ten of them, with their number.
// NotFound: no such file.
absl::StatusOr<std::vector<TextRow>> ReadRows(const std::string& path, DataFormat format);
absl::StatusOr<std::vector<TextRow>> ParseRows(std::string_view content, DataFormat format,
                                               const std::string& file);

// InvalidArgument if no other row has the first row's label: most likely an unknown header.
absl::Status CheckFirstLabel(std::span<const TextRow> rows, const std::string& file);

// "anger 3, joy 5": every label with its number of rows, the first 20.
std::string LabelCounts(std::span<const TextRow> rows);

struct Cleaned {
  std::vector<TextRow> rows;  // in file order
  uint64_t duplicates = 0;    // same text and label as an earlier row
  uint64_t conflicting = 0;   // rows whose text occurs with different labels; all are dropped
  uint64_t excluded = 0;      // rows whose text is one of `excluded`'s
};
// Texts are compared without regard to the case of ASCII letters and to how much space is where.
Cleaned CleanRows(std::span<const TextRow> rows, std::span<const TextRow> excluded);

// The distinct labels, sorted by byte value: a label's place is its class index.
std::vector<std::string> LabelsOf(std::span<const TextRow> rows);

// A seeded choice of `calibration` rows, the rest for training; both stay in file order.
struct Split {
  std::vector<TextRow> training, calibration;
};
// InvalidArgument unless each part gets a row, and training one of every label.
absl::StatusOr<Split> SplitRows(std::span<const TextRow> rows, uint64_t calibration, uint64_t seed);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_DATA_H_
