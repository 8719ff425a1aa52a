#include "training/checkpoint_files.h"

#include <system_error>

#include "engine/util/status.h"

namespace dimmer {

namespace fs = std::filesystem;

absl::Status CopyFile(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
  if (!error) return absl::OkStatus();
  fs::remove(to, error);
  return absl::UnavailableError(fmt::format("copying {} to {} failed: disk full or not writable?",
                                            from.string(), to.string()));
}

absl::Status CopyTokenizer(const fs::path& from, const fs::path& to) {
  const auto has = [&](const char* name) { return fs::exists(from / name); };
  for (const char* name : {"vocab.txt", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe",
                           "tokenizer_config.json", "special_tokens_map.json"}) {
    if (has(name)) DIMMER_RETURN_IF_ERROR(CopyFile(from / name, to / name));
  }
  const bool complete = has("vocab.txt") || has("vocab.json") || has("encoder.json");
  if (has("vocab.txt") || (complete && !has("tokenizer.json"))) return absl::OkStatus();
  return CopyFile(from / "tokenizer.json", to / "tokenizer.json");
}

}  // namespace dimmer
