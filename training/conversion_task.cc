#include "training/conversion_task.h"

#include "engine/util/status.h"

namespace dimmer {

absl::StatusOr<LoadedTask> LoadTask(const ConvertOptions& options, Progress& progress) {
  return options.task == "language-model" ? LoadLanguageModel(options, progress)
                                          : LoadClassification(options, progress);
}

absl::Status CheckExperts(const ConvertOptions& options, const ModelLayout& layout) {
  if (layout.hidden % options.route.experts == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("--experts: found {}, expected a divisor of the FFN's hidden width {}",
                  options.route.experts, layout.hidden));
}

absl::Status CheckVocabulary(const ConvertOptions& options, const Tokenizer& tokenizer,
                             const ModelLayout& layout) {
  if (static_cast<int64_t>(tokenizer.vocab_size()) <= layout.vocab) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: the tokenizer has {} tokens, config.json's vocab_size is {}",
                  options.checkpoint, tokenizer.vocab_size(), layout.vocab));
}

}  // namespace dimmer
