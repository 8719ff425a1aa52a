#include "training/text_corpus.h"

#include <utility>

#include "engine/package/package.h"
#include "engine/util/status.h"
#include "training/options.h"

namespace dimmer {
namespace {

uint64_t Predicted(std::span<const TokenizedDocument> documents) {
  uint64_t ids = 0;
  for (const TokenizedDocument& document : documents) ids += document.ids.size() - 1;
  return ids;
}

}  // namespace

absl::StatusOr<SplitText> ReadText(const TextOptions& options) {
  DIMMER_ASSIGN_OR_RETURN(const std::vector<std::string> documents, ReadDocuments(options.data));
  DIMMER_ASSIGN_OR_RETURN(const std::string checksum, FileChecksum(options.data));
  SplitText text;
  text.report = {{"file", BaseName(options.data)},
                 {"checksum", checksum},
                 {"split_seed", options.seed},
                 {"held_out", options.held_out}};
  std::vector<std::string> excluded;
  if (!options.exclude.empty()) {
    DIMMER_ASSIGN_OR_RETURN(excluded, ReadDocuments(options.exclude));
    DIMMER_ASSIGN_OR_RETURN(const std::string sum, FileChecksum(options.exclude));
    text.report["excluded_file"] = {{"file", BaseName(options.exclude)}, {"checksum", sum}};
  }
  auto split = SplitDocuments(documents, excluded, options.held_out, options.seed);
  if (!split.ok()) return Annotate(split.status(), options.data);
  text.split = *std::move(split);
  text.report["documents"] = text.split.documents;
  text.report["dropped"] = {{"duplicates", text.split.duplicates},
                            {"in_excluded_file", text.split.excluded}};
  for (const auto& [name, part] :
       {std::pair("training", &text.split.training),
        std::pair("validation", &text.split.validation),
        std::pair("calibration", &text.split.calibration), std::pair("test", &text.split.test)}) {
    text.report[name] = {{"documents", part->size()}, {"bytes", TextBytes(*part)}};
  }
  return text;
}

std::string DescribeText(const nlohmann::json& report) {
  const auto count = [&](const char* part, const char* what) {
    return report.at(part).at(what).get<uint64_t>();
  };
  return fmt::format(
      "{}: {} documents; dropped {} duplicates and {} of the excluded file; {} for training ({} "
      "bytes, {} tokens), {} for validation, {} for calibration, {} for the test",
      report.at("file").get<std::string>(), report.at("documents").get<uint64_t>(),
      count("dropped", "duplicates"), count("dropped", "in_excluded_file"),
      count("training", "documents"), count("training", "bytes"), count("training", "tokens"),
      count("validation", "documents"), count("calibration", "documents"),
      count("test", "documents"));
}

absl::StatusOr<TextCorpus> TokenizeText(const Tokenizer& tokenizer, const DocumentEnds& ends,
                                        const DocumentSplit& split, nlohmann::json& report) {
  TextCorpus corpus;
  DIMMER_ASSIGN_OR_RETURN(corpus.training, TokenizeDocuments(tokenizer, ends, split.training));
  DIMMER_ASSIGN_OR_RETURN(corpus.validation, TokenizeDocuments(tokenizer, ends, split.validation));
  DIMMER_ASSIGN_OR_RETURN(corpus.calibration,
                          TokenizeDocuments(tokenizer, ends, split.calibration));
  DIMMER_ASSIGN_OR_RETURN(corpus.test, TokenizeDocuments(tokenizer, ends, split.test));
  report["training"]["tokens"] = Predicted(corpus.training);
  report["validation"]["tokens"] = Predicted(corpus.validation);
  report["calibration"]["tokens"] = Predicted(corpus.calibration);
  report["test"]["tokens"] = Predicted(corpus.test);
  return corpus;
}

bool SameSplit(const nlohmann::json& a, const nlohmann::json& b) {
  for (const char* key : {"checksum", "split_seed", "held_out"}) {
    if (!a.contains(key) || !b.contains(key) || a.at(key) != b.at(key)) return false;
  }
  return true;
}

}  // namespace dimmer
