#include "training/documents.h"

#include <optional>
#include <unordered_set>
#include <utility>

#include "engine/package/json_fields.h"
#include "engine/text/utf8.h"
#include "engine/util/status.h"
#include "training/random.h"

namespace dimmer {
namespace {

constexpr uint64_t kMaxFileBytes = 4ull << 30;
constexpr std::string_view kSpace = " \t\r\n\v\f";

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

void AddDocument(std::string_view text, std::vector<std::string>& documents) {
  const std::string_view trimmed = Trim(text);
  if (!trimmed.empty()) documents.emplace_back(trimmed);
}

void CutAtMarks(std::string_view content, std::vector<std::string>& documents) {
  while (true) {
    const size_t mark = content.find(kEndOfText);
    AddDocument(content.substr(0, mark), documents);
    if (mark == std::string_view::npos) return;
    content.remove_prefix(mark + std::string_view(kEndOfText).size());
  }
}

void CutAtParagraphs(std::string_view content, std::vector<std::string>& documents) {
  size_t begin = 0;
  size_t position = 0;
  while (position < content.size()) {
    size_t end = content.find('\n', position);
    end = end == std::string_view::npos ? content.size() : end + 1;
    const bool blank = Trim(content.substr(position, end - position)).empty();
    position = end;
    if (position - begin >= (blank ? kDocumentBytes : 4 * kDocumentBytes)) {
      AddDocument(content.substr(begin, position - begin), documents);
      begin = position;
    }
  }
  AddDocument(content.substr(begin), documents);
}

// Uniform in [0, 1), a function of the text and the seed.
double Draw(std::string_view text, uint64_t seed) {
  uint64_t hash = RandomKey({seed, 0xD0C5, text.size()});
  for (const char c : text) hash = MixBits(hash ^ static_cast<uint8_t>(c));
  return static_cast<double>(hash >> 11) * 0x1.0p-53;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> CutDocuments(std::string_view content,
                                                      const std::string& file) {
  if (content.starts_with("\xEF\xBB\xBF")) content.remove_prefix(3);  // byte order mark
  if (const std::optional<size_t> bad = FindInvalidUtf8(content)) {
    return absl::InvalidArgumentError(fmt::format("{}: byte {}: not valid UTF-8", file, *bad));
  }
  std::vector<std::string> documents;
  if (content.find(kEndOfText) != std::string_view::npos) {
    CutAtMarks(content, documents);
  } else {
    CutAtParagraphs(content, documents);
  }
  if (documents.empty()) return absl::InvalidArgumentError(fmt::format("{}: no text", file));
  return documents;
}

absl::StatusOr<std::vector<std::string>> ReadDocuments(const std::string& path) {
  DIMMER_ASSIGN_OR_RETURN(const std::string content, ReadTextFile(path, kMaxFileBytes));
  return CutDocuments(content, path);
}

absl::StatusOr<DocumentSplit> SplitDocuments(std::span<const std::string> documents,
                                             std::span<const std::string> excluded, double held_out,
                                             uint64_t seed) {
  const std::unordered_set<std::string_view> unwanted(excluded.begin(), excluded.end());
  std::unordered_set<std::string_view> seen;
  DocumentSplit split;
  split.documents = documents.size();
  for (const std::string& document : documents) {
    if (unwanted.contains(document)) {
      ++split.excluded;
    } else if (!seen.insert(document).second) {
      ++split.duplicates;
    } else {
      const double draw = Draw(document, seed);
      std::vector<std::string>& part = draw < held_out       ? split.test
                                       : draw < 2 * held_out ? split.calibration
                                       : draw < 3 * held_out ? split.validation
                                                             : split.training;
      part.push_back(document);
    }
  }
  for (const auto& [name, part] :
       {std::pair("training", &split.training), std::pair("validation", &split.validation),
        std::pair("calibration", &split.calibration), std::pair("test", &split.test)}) {
    if (part->empty()) {
      return absl::InvalidArgumentError(
          fmt::format("--held-out {:g} leaves no document for {}: found {} different documents; "
                      "give more text or another share",
                      held_out, name, seen.size()));
    }
  }
  return split;
}

uint64_t TextBytes(std::span<const std::string> documents) {
  uint64_t bytes = 0;
  for (const std::string& document : documents) bytes += document.size();
  return bytes;
}

}  // namespace dimmer
