#include "training/data.h"

#include <absl/strings/str_join.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "engine/package/json_fields.h"
#include "engine/util/status.h"
#include "training/random.h"

namespace dimmer {
namespace {

constexpr uint64_t kMaxFileBytes = 4ull << 30;
constexpr size_t kListedErrors = 10;

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return lower;
}

// Length of the valid UTF-8 sequence at the front of `text`, 0 if there is none (RFC 3629).
size_t Utf8SequenceLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const auto continues = [&](size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    if (!continues(1) || !continues(2)) return 0;
    if (lead == 0xE0 && byte(1) < 0xA0) return 0;  // overlong
    if (lead == 0xED && byte(1) > 0x9F) return 0;  // surrogate
    return 3;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (lead == 0xF0 && byte(1) < 0x90) return 0;  // overlong
    if (lead == 0xF4 && byte(1) > 0x8F) return 0;  // above U+10FFFF
    return 4;
  }
  return 0;
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = Utf8SequenceLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::vector<std::string_view> Columns(std::string_view line) {
  std::vector<std::string_view> columns;
  while (true) {
    const size_t tab = line.find('\t');
    columns.push_back(Trim(line.substr(0, tab)));
    if (tab == std::string_view::npos) return columns;
    line.remove_prefix(tab + 1);
  }
}

// Where a TSV file keeps text and label.
struct Layout {
  size_t text = 0, label = 1, columns = 2;
};

// What data sets call their columns.
constexpr std::string_view kTextNames[] = {"text",    "sentence", "review", "content",
                                           "comment", "message",  "tweet",  "utterance"};
constexpr std::string_view kLabelNames[] = {"label",   "labels", "sentiment", "class",
                                            "emotion", "intent", "category",  "target"};

bool IsOneOf(std::string_view name, std::span<const std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Does a line of text;label name its columns instead?
bool IsSemicolonHeader(std::string_view line) {
  const size_t cut = line.rfind(';');
  return cut != std::string_view::npos && IsOneOf(Lower(Trim(line.substr(0, cut))), kTextNames) &&
         IsOneOf(Lower(Trim(line.substr(cut + 1))), kLabelNames);
}

// The layout that a header line states; nothing if the line is no header.
std::optional<Layout> HeaderLayout(std::string_view line) {
  std::optional<size_t> text;
  std::optional<size_t> label;
  const std::vector<std::string_view> columns = Columns(line);
  for (size_t i = 0; i < columns.size(); ++i) {
    const std::string name = Lower(columns[i]);
    if (!text.has_value() && IsOneOf(name, kTextNames)) text = i;
    if (!label.has_value() && IsOneOf(name, kLabelNames)) label = i;
  }
  if (!text.has_value() || !label.has_value()) return std::nullopt;
  return Layout{*text, *label, columns.size()};
}

// Fills `row`, or says why not.
std::string ParseLine(std::string_view line, DataFormat format, const Layout& layout,
                      TextRow& row) {
  if (!IsUtf8(line)) return "not valid UTF-8";
  if (format == DataFormat::kSemicolon) {
    const size_t cut = line.rfind(';');
    if (cut == std::string_view::npos) return "no ';' between text and label";
    row.text = Trim(line.substr(0, cut));
    row.label = Trim(line.substr(cut + 1));
  } else {
    const std::vector<std::string_view> columns = Columns(line);
    if (columns.size() != layout.columns) {
      return fmt::format("found {} tab-separated columns, expected {}", columns.size(),
                         layout.columns);
    }
    row.text = columns[layout.text];
    row.label = columns[layout.label];
  }
  if (row.text.empty()) return "the text is empty";
  if (row.label.empty()) return "the label is empty";
  return "";
}

// Texts that differ in case or spaces alone are one text to an uncased tokenizer.
std::string AsTheModelSeesIt(std::string_view text) {
  return Lower(absl::StrJoin(
      absl::StrSplit(std::string(text), absl::ByAnyChar(" \t\r\n\v\f"), absl::SkipEmpty()), " "));
}

}  // namespace

absl::StatusOr<DataFormat> ParseDataFormat(std::string_view name) {
  if (name == "auto") return DataFormat::kAuto;
  if (name == "semicolon") return DataFormat::kSemicolon;
  if (name == "tsv") return DataFormat::kTsv;
  return absl::InvalidArgumentError(
      fmt::format("data format: found \"{}\", expected auto, semicolon or tsv", name));
}

absl::StatusOr<std::vector<TextRow>> ParseRows(std::string_view content, DataFormat format,
                                               const std::string& file) {
  if (content.starts_with("\xEF\xBB\xBF")) content.remove_prefix(3);  // byte order mark
  std::vector<TextRow> rows;
  std::vector<std::string> errors;
  size_t bad = 0;
  Layout layout;
  bool first = true;
  for (uint64_t number = 1; !content.empty(); ++number) {
    const size_t end = content.find('\n');
    const std::string_view line = content.substr(0, end);
    content.remove_prefix(end == std::string_view::npos ? content.size() : end + 1);
    if (Trim(line).empty()) continue;
    if (first) {
      first = false;
      if (format == DataFormat::kAuto) {
        format =
            line.find('\t') != std::string_view::npos ? DataFormat::kTsv : DataFormat::kSemicolon;
      }
      if (format == DataFormat::kTsv) {
        if (const std::optional<Layout> header = HeaderLayout(line)) {
          layout = *header;
          continue;
        }
      } else if (IsSemicolonHeader(line)) {
        continue;
      }
    }
    TextRow row;
    row.line = number;
    const std::string error = ParseLine(line, format, layout, row);
    if (error.empty()) {
      rows.push_back(std::move(row));
    } else if (++bad <= kListedErrors) {
      errors.push_back(fmt::format("{}:{}: {}", file, number, error));
    }
  }
  if (bad > 0) {
    if (bad > kListedErrors) errors.push_back(fmt::format("and {} more", bad - kListedErrors));
    return absl::InvalidArgumentError(
        fmt::format("{} bad rows in {}\n  {}", bad, file, absl::StrJoin(errors, "\n  ")));
  }
  if (rows.empty()) return absl::InvalidArgumentError(fmt::format("{}: no rows", file));
  return rows;
}

absl::StatusOr<std::vector<TextRow>> ReadRows(const std::string& path, DataFormat format) {
  DIMMER_ASSIGN_OR_RETURN(const std::string content, ReadTextFile(path, kMaxFileBytes));
  return ParseRows(content, format, path);
}

absl::Status CheckFirstLabel(std::span<const TextRow> rows, const std::string& file) {
  const TextRow& first = rows.front();
  for (const TextRow& row : rows.subspan(1)) {
    if (row.label == first.label) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format(
      "{}:{}: the label \"{}\" occurs in this row alone: a header? Remove the line, or name its "
      "columns \"text\" and \"label\"",
      file, first.line, first.label));
}

std::string LabelCounts(std::span<const TextRow> rows) {
  constexpr size_t kListed = 20;
  std::map<std::string_view, uint64_t> counts;
  for (const TextRow& row : rows) ++counts[row.label];
  std::vector<std::string> parts;
  for (const auto& [label, count] : counts) {
    if (parts.size() == kListed) {
      parts.push_back(fmt::format("and {} more", counts.size() - kListed));
      break;
    }
    parts.push_back(fmt::format("{} {}", label, count));
  }
  return absl::StrJoin(parts, ", ");
}

Cleaned CleanRows(std::span<const TextRow> rows, std::span<const TextRow> excluded) {
  std::unordered_set<std::string> held_out;
  for (const TextRow& row : excluded) held_out.insert(AsTheModelSeesIt(row.text));
  std::vector<std::string> keys;
  std::unordered_map<std::string_view, std::string_view> label_of;
  std::unordered_set<std::string_view> conflicting;
  for (const TextRow& row : rows) keys.push_back(AsTheModelSeesIt(row.text));
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto [found, inserted] = label_of.emplace(keys[i], rows[i].label);
    if (!inserted && found->second != rows[i].label) conflicting.insert(keys[i]);
  }
  Cleaned cleaned;
  std::unordered_set<std::string_view> seen;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (held_out.contains(keys[i])) {
      ++cleaned.excluded;
    } else if (conflicting.contains(keys[i])) {
      ++cleaned.conflicting;
    } else if (!seen.insert(keys[i]).second) {
      ++cleaned.duplicates;
    } else {
      cleaned.rows.push_back(rows[i]);
    }
  }
  return cleaned;
}

std::vector<std::string> LabelsOf(std::span<const TextRow> rows) {
  std::set<std::string> labels;
  for (const TextRow& row : rows) labels.insert(row.label);
  return {labels.begin(), labels.end()};
}

absl::StatusOr<Split> SplitRows(std::span<const TextRow> rows, uint64_t calibration,
                                uint64_t seed) {
  if (calibration == 0 || calibration >= rows.size()) {
    return absl::InvalidArgumentError(
        fmt::format("calibration rows: found {}, expected 1 to {} (of {} rows, some must be left "
                    "for training)",
                    calibration, rows.size() - 1, rows.size()));
  }
  const std::vector<uint32_t> order =
      Permutation(static_cast<uint32_t>(rows.size()), RandomKey({seed, 0xCA11B}));
  std::vector<bool> chosen(rows.size(), false);
  for (uint64_t i = 0; i < calibration; ++i) chosen[order[i]] = true;
  Split split;
  for (size_t i = 0; i < rows.size(); ++i) {
    (chosen[i] ? split.calibration : split.training).push_back(rows[i]);
  }
  if (LabelsOf(split.training).size() != LabelsOf(rows).size()) {
    return absl::InvalidArgumentError(
        "the training rows lack a label that calibration rows have: give more rows, or fewer "
        "calibration rows");
  }
  return split;
}

}  // namespace dimmer
