#include "training/checkpoint_files.h"

#include <set>
#include <string>
#include <system_error>

#include "engine/package/json_fields.h"
#include "engine/text/tokenizer.h"
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

namespace {

// What a vocab.txt says too.
absl::StatusOr<bool> IsWordPieceJson(const fs::path& path) {
  DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, path));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, path));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields model, fields.Object("model"));
  DIMMER_ASSIGN_OR_RETURN(const std::string type, model.String("type"));
  return type == "WordPiece";
}

// llama2.c's: tokenizer.bin, tok512.bin.
bool IsLlama2cTokenizer(const std::string& name) {
  return name.starts_with("tok") && name.ends_with(".bin");
}

}  // namespace

absl::Status CopyTokenizer(const fs::path& from, const fs::path& to) {
  const std::set<std::string> names = {"vocab.txt",
                                       "vocab.json",
                                       "merges.txt",
                                       "encoder.json",
                                       "vocab.bpe",
                                       "added_tokens.json",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json"};
  std::error_code error;
  for (fs::directory_iterator it(from, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    bool wanted = names.contains(name) || IsLlama2cTokenizer(name);
    if (name == "tokenizer.json") {
      DIMMER_ASSIGN_OR_RETURN(const bool redundant, IsWordPieceJson(it->path()));
      wanted = !redundant || !fs::exists(from / "vocab.txt");
    }
    if (wanted) DIMMER_RETURN_IF_ERROR(CopyFile(it->path(), to / name));
  }
  if (error) {
    return absl::UnavailableError(
        fmt::format("{}: cannot be read: {}", from.string(), error.message()));
  }
  DIMMER_ASSIGN_OR_RETURN(const auto whole, LoadTokenizer(from));
  DIMMER_ASSIGN_OR_RETURN(const auto copy, LoadTokenizer(to));
  if (whole->vocab_size() == copy->vocab_size()) return absl::OkStatus();
  return absl::InternalError(fmt::format("{}: found a tokenizer of {} tokens, expected {} as in {}",
                                         to.string(), copy->vocab_size(), whole->vocab_size(),
                                         from.string()));
}

}  // namespace dimmer
