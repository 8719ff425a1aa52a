// tokenizer_config.json for BPE, and GPT-2's two files: vocab.json and merges.txt.
#include "engine/text/bpe_files.h"

#include <algorithm>
#include <utility>

#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr char kEndOfText[] = "<|endoftext|>";

// The first token of the template before or after the text.
std::optional<int32_t> TemplateToken(const TextTemplate& around, bool before) {
  const auto& pieces = around.single;
  if (pieces.empty()) return std::nullopt;
  const TextTemplate::Piece& piece = before ? pieces.front() : pieces.back();
  if (piece.what != TextTemplate::What::kToken) return std::nullopt;
  return piece.id;
}

// What stands for the start or the end where no file says it.
std::optional<int32_t> UsualToken(const BpeOptions& options, std::string_view llama_name) {
  const std::string_view name =
      options.units == BpeUnits::kBytes ? std::string_view(kEndOfText) : llama_name;
  const auto it = std::find_if(options.added.begin(), options.added.end(), [&](const auto& added) {
    return added.special && added.content == name;
  });
  if (it == options.added.end()) return std::nullopt;
  return it->id;
}

absl::StatusOr<std::optional<int32_t>> ReadToken(const JsonFields& config, const VocabIndex& index,
                                                 std::string_view key) {
  std::optional<int32_t> id;
  if (!config.Has(key)) return id;
  DIMMER_ASSIGN_OR_RETURN(const std::string name, ReadTokenName(config, key, ""));
  DIMMER_ASSIGN_OR_RETURN(id, FindToken(index, name, fmt::format("{}: {}", config.where(), key)));
  return id;
}

// [start] A [end], and the same around B.
absl::Status SetTemplate(const JsonFields& config, bool start, bool end, BpeOptions& options) {
  const auto need = [&](bool wanted, const std::optional<int32_t>& id,
                        const char* key) -> absl::Status {
    if (!wanted || id) return absl::OkStatus();
    return absl::InvalidArgumentError(
        fmt::format("{}: {}: found nothing, expected the token to add", config.where(), key));
  };
  DIMMER_RETURN_IF_ERROR(need(start, options.bos, "bos_token"));
  DIMMER_RETURN_IF_ERROR(need(end, options.eos, "eos_token"));
  using enum TextTemplate::What;
  const auto append = [&](std::vector<TextTemplate::Piece>& pieces, TextTemplate::What text,
                          int32_t type) {
    if (start) pieces.push_back({kToken, *options.bos, type});
    pieces.push_back({text, 0, type});
    if (end) pieces.push_back({kToken, *options.eos, type});
  };
  options.around = {.single = {}, .pair = {}};
  append(options.around.single, kFirst, 0);
  append(options.around.pair, kFirst, 0);
  append(options.around.pair, kSecond, 1);
  return absl::OkStatus();
}

// One "left right" a line, below a line "#version: ...".
absl::Status ReadMergesText(std::string_view text, const std::string& path, const VocabIndex& index,
                            std::vector<BpeMerge>& merges) {
  for (size_t line_number = 1; !text.empty(); ++line_number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (line_number == 1 && line.starts_with("#version"))) continue;
    const std::string where = fmt::format("{}:{}", path, line_number);
    const size_t blank = line.find(' ');
    const std::string_view left = line.substr(0, blank);
    const std::string_view right =
        blank == std::string_view::npos ? std::string_view() : line.substr(blank + 1);
    if (left.empty() || right.empty() || right.find(' ') != std::string_view::npos) {
      return absl::InvalidArgumentError(
          fmt::format("{}: found \"{}\", expected two tokens", where, line.substr(0, 80)));
    }
    const auto rank = static_cast<uint32_t>(merges.size());
    DIMMER_ASSIGN_OR_RETURN(const BpeMerge merge, FindMerge(index, left, right, rank, where));
    merges.push_back(merge);
  }
  return absl::OkStatus();
}

// Adds a token of the vocabulary, or lets one that is added be special.
void AddToken(const std::string& token, int32_t id, bool special, BpeOptions& options) {
  for (BpeOptions::Added& known : options.added) {
    if (known.id != id) continue;
    known.special |= special;
    return;
  }
  options.added.push_back({token, id, special});
}

// {"token": id}: tokens of the vocabulary, and ids that go on after it.
absl::Status ReadAddedTokensJson(const std::string& path, BpeOptions& options) {
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ReadOptionalJson(path));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, path));
  std::vector<std::pair<int64_t, std::string>> added;
  for (const auto& item : json.items()) {
    DIMMER_ASSIGN_OR_RETURN(const int64_t id, fields.Int(item.key(), 0, INT32_MAX));
    added.emplace_back(id, item.key());
  }
  std::sort(added.begin(), added.end());
  for (auto& [id, token] : added) {
    if (static_cast<size_t>(id) < options.tokens.size() && options.tokens[id] == token) {
      AddToken(token, static_cast<int32_t>(id), /*special=*/false, options);
      continue;
    }
    if (static_cast<size_t>(id) != options.tokens.size()) {
      return absl::InvalidArgumentError(fmt::format("{}: {}: found id {}, expected the next, {}",
                                                    path, token, id, options.tokens.size()));
    }
    options.tokens.push_back(token);
    options.added.push_back({token, static_cast<int32_t>(id), /*special=*/false});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int32_t> FindToken(const VocabIndex& index, std::string_view token,
                                  std::string_view where) {
  const std::optional<int32_t> id = index.Find(token);
  if (id) return *id;
  return absl::InvalidArgumentError(
      fmt::format("{}: found {}, expected a token of the vocabulary", where, token.substr(0, 80)));
}

absl::StatusOr<BpeMerge> FindMerge(const VocabIndex& index, std::string_view left,
                                   std::string_view right, uint32_t rank, std::string_view where) {
  BpeMerge merge{.rank = rank};
  DIMMER_ASSIGN_OR_RETURN(merge.left, FindToken(index, left, where));
  DIMMER_ASSIGN_OR_RETURN(merge.right, FindToken(index, right, where));
  DIMMER_ASSIGN_OR_RETURN(merge.result, FindToken(index, std::string(left).append(right), where));
  return merge;
}

absl::Status ApplyTokenizerConfig(const std::string& directory, BpeSource source,
                                  BpeOptions& options) {
  const std::string path = directory + "/tokenizer_config.json";
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ReadOptionalJson(path));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields config, JsonFields::Of(json, path));
  const VocabIndex index(options.tokens);
  DIMMER_ASSIGN_OR_RETURN(options.bos, ReadToken(config, index, "bos_token"));
  DIMMER_ASSIGN_OR_RETURN(options.eos, ReadToken(config, index, "eos_token"));
  if (!options.bos) options.bos = TemplateToken(options.around, /*before=*/true);
  if (!options.bos) options.bos = UsualToken(options, "<s>");
  if (!options.eos) options.eos = TemplateToken(options.around, /*before=*/false);
  if (!options.eos) options.eos = UsualToken(options, "</s>");

  DIMMER_ASSIGN_OR_RETURN(const std::string type, config.String("tokenizer_class", ""));
  const bool gpt2 = type.starts_with("GPT2Tokenizer") || source == BpeSource::kVocabAndMerges;
  if (gpt2 && options.units == BpeUnits::kBytes) {
    DIMMER_ASSIGN_OR_RETURN(const bool adds_blank, config.Bool("add_prefix_space", false));
    options.prefix = adds_blank ? BlankPrefix::kUnlessThere : BlankPrefix::kNone;
  }
  if (source == BpeSource::kVocabAndMerges) {
    DIMMER_ASSIGN_OR_RETURN(const bool starts, config.Bool("add_bos_token", false));
    return starts ? SetTemplate(config, true, false, options) : absl::OkStatus();
  }
  if (type.starts_with("LlamaTokenizer")) {
    DIMMER_ASSIGN_OR_RETURN(const bool starts, config.Bool("add_bos_token", true));
    DIMMER_ASSIGN_OR_RETURN(const bool ends, config.Bool("add_eos_token", false));
    return SetTemplate(config, starts, ends, options);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadGpt2Files(const std::string& directory,
                                                         const std::string& vocab,
                                                         const std::string& merges) {
  const std::string vocab_path = directory + "/" + vocab;
  const std::string merges_path = directory + "/" + merges;
  BpeOptions options;
  options.units = BpeUnits::kBytes;
  {
    DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(vocab_path));
    DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, vocab_path));
    DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, vocab_path));
    DIMMER_ASSIGN_OR_RETURN(options.tokens, ReadVocab(fields));
  }
  {
    const VocabIndex index(options.tokens);
    DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(merges_path));
    DIMMER_RETURN_IF_ERROR(ReadMergesText(text, merges_path, index, options.merges));
    if (const std::optional<int32_t> id = index.Find(kEndOfText)) {
      options.added.push_back({kEndOfText, *id, /*special=*/true});
    }
  }
  DIMMER_RETURN_IF_ERROR(ReadAddedTokensJson(directory + "/added_tokens.json", options));
  DIMMER_RETURN_IF_ERROR(ApplyTokenizerConfig(directory, BpeSource::kVocabAndMerges, options));
  for (const std::optional<int32_t>& id : {options.bos, options.eos}) {
    if (id) AddToken(options.tokens[*id], *id, /*special=*/true, options);
  }
  absl::StatusOr<std::unique_ptr<BpeTokenizer>> tokenizer =
      BpeTokenizer::Create(std::move(options));
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), vocab_path);
  return std::unique_ptr<Tokenizer>(std::move(*tokenizer));
}

}  // namespace dimmer
