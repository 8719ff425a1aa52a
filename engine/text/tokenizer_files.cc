// From the files of a checkpoint directory to a tokenizer.
#include <algorithm>
#include <filesystem>
#include <utility>

#include "engine/text/llama2c_tokenizer.h"
#include "engine/text/vocab_files.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerJson(const std::string& directory) {
  const std::string path = directory + "/tokenizer.json";
  DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, path));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, path));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields model, fields.Object("model"));
  DIMMER_ASSIGN_OR_RETURN(const std::string type, model.String("type"));
  if (type == "WordPiece") return LoadWordPieceJson(directory, fields);
  if (type == "BPE") return LoadBpeJson(directory, fields);
  return absl::UnimplementedError(
      fmt::format("{}: type: found {}, expected WordPiece or BPE", model.where(), type));
}

// The files of the directory that are named like llama2.c's tokenizers: tokenizer.bin, tok512.bin.
std::vector<std::string> Llama2cFiles(const std::string& directory) {
  std::vector<std::string> found;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with("tok") && name.ends_with(".bin")) found.push_back(name);
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& directory) {
  const auto has = [&](const char* name) { return FileExists(directory + "/" + name); };
  if (has("tokenizer.json")) return LoadTokenizerJson(directory);
  if (has("vocab.json") && has("merges.txt")) {
    return LoadGpt2Files(directory, "vocab.json", "merges.txt");
  }
  if (has("encoder.json") && has("vocab.bpe")) {
    return LoadGpt2Files(directory, "encoder.json", "vocab.bpe");
  }
  if (has("vocab.txt")) return LoadWordPieceVocab(directory);
  const std::vector<std::string> bins = Llama2cFiles(directory);
  if (bins.size() > 1) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {}, expected one tokenizer", directory, fmt::join(bins, " and ")));
  }
  if (bins.size() == 1) return LoadLlama2cTokenizer(directory + "/" + bins[0]);
  return absl::NotFoundError(fmt::format(
      "{}: found neither tokenizer.json nor vocab.txt nor vocab.json with merges.txt nor "
      "encoder.json with vocab.bpe nor tok*.bin",
      directory));
}

}  // namespace dimmer
