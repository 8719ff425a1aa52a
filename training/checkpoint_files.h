// The files of a checkpoint beside its weights.
#ifndef DIMMER_TRAINING_CHECKPOINT_FILES_H_
#define DIMMER_TRAINING_CHECKPOINT_FILES_H_

#include <absl/status/status.h>

#include <filesystem>

namespace dimmer {

// Unavailable: the disk is full or `to` cannot be written; nothing is left there then.
absl::Status CopyFile(const std::filesystem::path& from, const std::filesystem::path& to);

// Copies what the tokenizer of the folder `from` is made of, but for a WordPiece tokenizer.json
// where a vocab.txt says the same. What LoadTokenizer returns, if one of the two has no tokenizer.
absl::Status CopyTokenizer(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_CHECKPOINT_FILES_H_
