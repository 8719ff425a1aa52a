#include "training/train_tokenizer.h"

#include "engine/package/json_fields.h"
#include "engine/text/encoding.h"
#include "engine/text/tokenizer.h"
#include "engine/util/status.h"
#include "training/bpe_trainer.h"
#include "training/new_folder.h"
#include "training/tokenizer_writer.h"

namespace dimmer {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{4} << 30;

// What was written must say the same as what was trained.
absl::Status CheckWritten(const std::string& folder, const BpeTraining& training) {
  DIMMER_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(folder));
  for (size_t id = 0; id < training.tokens.size(); ++id) {
    if (tokenizer->TokenOf(static_cast<int32_t>(id)) == training.tokens[id]) continue;
    return absl::InternalError(fmt::format("{}: token {} is not what was trained", folder, id));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status TrainTokenizer(const TrainTokenizerOptions& options, Progress& progress) {
  WordCounts counts;
  progress.Start("reading", "files", options.data.size());
  uint64_t bytes = 0;
  for (const std::string& path : options.data) {
    DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMaxFileBytes));
    DIMMER_RETURN_IF_ERROR(CheckUtf8(text, path));
    CountWords(text, counts);
    bytes += text.size();
    progress.Advance(fmt::format("{} different words", counts.size()));
  }
  progress.Finish();
  progress.Start("merging", "tokens", options.vocab_size);
  DIMMER_ASSIGN_OR_RETURN(const BpeTraining training,
                          TrainBpe(counts, options.vocab_size, options.min_count,
                                   [&](uint64_t tokens) { progress.Update(tokens, ""); }));
  progress.Update(training.tokens.size(), "");
  progress.Finish();
  progress.Note(fmt::format("{} tokens from {} bytes in {} different words", training.tokens.size(),
                            bytes, counts.size()));
  if (training.tokens.size() < options.vocab_size) {
    progress.Note(fmt::format("fewer than the {} asked for: no other pair occurs {} times",
                              options.vocab_size, options.min_count));
  }
  return WriteNewFolder(options.to, [&](const std::string& folder) -> absl::Status {
    DIMMER_RETURN_IF_ERROR(WriteGpt2Tokenizer(folder, training));
    return CheckWritten(folder, training);
  });
}

}  // namespace dimmer
