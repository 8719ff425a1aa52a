// WordPiece from tokenizer.json, or from vocab.txt with tokenizer_config.json.
#include <utility>

#include "engine/text/vocab_files.h"
#include "engine/text/wordpiece.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

// A null strip_accents follows lowercase.
absl::Status ReadNormalizer(const JsonFields& fields, const char* lowercase_key,
                            const char* chinese_key, BertNormalizerOptions& options) {
  DIMMER_ASSIGN_OR_RETURN(options.clean_text, fields.Bool("clean_text", true));
  DIMMER_ASSIGN_OR_RETURN(options.handle_chinese_chars, fields.Bool(chinese_key, true));
  DIMMER_ASSIGN_OR_RETURN(options.lowercase, fields.Bool(lowercase_key, true));
  DIMMER_ASSIGN_OR_RETURN(options.strip_accents, fields.Bool("strip_accents", options.lowercase));
  return absl::OkStatus();
}

absl::Status ReadSpecialTokens(const JsonFields& fields, WordPieceOptions& options) {
  DIMMER_ASSIGN_OR_RETURN(options.unknown_token, ReadTokenName(fields, "unk_token", "[UNK]"));
  DIMMER_ASSIGN_OR_RETURN(options.start_token, ReadTokenName(fields, "cls_token", "[CLS]"));
  DIMMER_ASSIGN_OR_RETURN(options.end_token, ReadTokenName(fields, "sep_token", "[SEP]"));
  DIMMER_ASSIGN_OR_RETURN(std::string pad, ReadTokenName(fields, "pad_token", "[PAD]"));
  DIMMER_ASSIGN_OR_RETURN(std::string mask, ReadTokenName(fields, "mask_token", "[MASK]"));
  options.special_tokens = {std::move(pad), options.unknown_token, options.start_token,
                            options.end_token, std::move(mask)};
  return absl::OkStatus();
}

// What a BertTokenizer's tokenizer_config.json says outranks tokenizer.json, as in transformers.
absl::Status ApplyConfig(const std::string& path, BertNormalizerOptions& options) {
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ReadOptionalJson(path));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, path));
  DIMMER_ASSIGN_OR_RETURN(const std::string type, fields.String("tokenizer_class", ""));
  if (!type.starts_with("BertTokenizer")) return absl::OkStatus();
  const bool stripped_like_lowercase = options.strip_accents == options.lowercase;
  DIMMER_ASSIGN_OR_RETURN(options.lowercase, fields.Bool("do_lower_case", options.lowercase));
  DIMMER_ASSIGN_OR_RETURN(
      options.strip_accents,
      fields.Bool("strip_accents",
                  stripped_like_lowercase ? options.lowercase : options.strip_accents));
  DIMMER_ASSIGN_OR_RETURN(options.handle_chinese_chars,
                          fields.Bool("tokenize_chinese_chars", options.handle_chinese_chars));
  return absl::OkStatus();
}

// The tokens that a post-processor puts around a text: BertProcessing names them, a template has
// them as its first and last piece for a single text.
absl::Status ReadPostProcessor(const JsonFields& fields, WordPieceOptions& options) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields post, fields.Object("post_processor"));
  DIMMER_ASSIGN_OR_RETURN(const std::string type, post.String("type"));
  const nlohmann::json& json = post.json();
  const auto token_of = [](const nlohmann::json& value) {
    return value.is_string() ? value.get<std::string>() : std::string();
  };
  std::string start, end;
  if (type == "BertProcessing") {
    const nlohmann::json cls = json.value("cls", nlohmann::json::array());
    const nlohmann::json sep = json.value("sep", nlohmann::json::array());
    if (cls.is_array() && !cls.empty()) start = token_of(cls[0]);
    if (sep.is_array() && !sep.empty()) end = token_of(sep[0]);
  } else if (type == "TemplateProcessing") {
    const nlohmann::json single = json.value("single", nlohmann::json::array());
    const nlohmann::json pair = json.value("pair", nlohmann::json::array());
    const auto piece = [&](const nlohmann::json& items, size_t i) -> std::string {
      const nlohmann::json none;
      const nlohmann::json& special = items[i].is_object() && items[i].contains("SpecialToken")
                                          ? items[i]["SpecialToken"]
                                          : none;
      return special.is_object() && special.contains("id") ? token_of(special["id"]) : "";
    };
    // [CLS] A [SEP] and [CLS] A [SEP] B [SEP].
    if (single.is_array() && single.size() == 3 && pair.is_array() && pair.size() == 5 &&
        piece(single, 0) == piece(pair, 0) && piece(single, 2) == piece(pair, 2) &&
        piece(single, 2) == piece(pair, 4)) {
      start = piece(single, 0);
      end = piece(single, 2);
    }
  }
  if (start.empty() || end.empty()) {
    return absl::UnimplementedError(
        fmt::format("{}: found a {} of another form, expected [CLS] text [SEP] (pair [SEP])",
                    post.where(), type));
  }
  options.start_token = std::move(start);
  options.end_token = std::move(end);
  return absl::OkStatus();
}

// One token a line; a last line without an end counts, an empty last line does not.
std::vector<std::string> SplitLines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.emplace_back(line);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return lines;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadWordPieceJson(const std::string& directory,
                                                             const JsonFields& fields) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields model, ExpectType(fields, "model", "WordPiece"));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields normalizer,
                          ExpectType(fields, "normalizer", "BertNormalizer"));
  DIMMER_RETURN_IF_ERROR(ExpectType(fields, "pre_tokenizer", "BertPreTokenizer").status());
  WordPieceOptions options;
  DIMMER_RETURN_IF_ERROR(
      ReadNormalizer(normalizer, "lowercase", "handle_chinese_chars", options.normalizer));
  DIMMER_RETURN_IF_ERROR(ApplyConfig(directory + "/tokenizer_config.json", options.normalizer));
  DIMMER_ASSIGN_OR_RETURN(options.continuing_prefix,
                          model.String("continuing_subword_prefix", "##"));
  DIMMER_ASSIGN_OR_RETURN(options.unknown_token, model.String("unk_token", "[UNK]"));
  DIMMER_ASSIGN_OR_RETURN(options.max_word_characters,
                          model.Int("max_input_chars_per_word", 1, 1 << 16, 100));
  DIMMER_RETURN_IF_ERROR(ReadPostProcessor(fields, options));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields tokens, model.Object("vocab"));
  DIMMER_ASSIGN_OR_RETURN(std::vector<std::string> vocab, ReadVocab(tokens));
  DIMMER_ASSIGN_OR_RETURN(const std::vector<AddedTokenEntry> added, ReadAddedTokens(fields, vocab));
  options.special_tokens.clear();
  for (const AddedTokenEntry& token : added) {
    if (token.normalized) {
      return absl::UnimplementedError(
          fmt::format("{}: added_tokens: normalized: found true for {}, expected false",
                      fields.where(), token.content));
    }
    options.special_tokens.push_back(token.content);
  }
  absl::StatusOr<std::unique_ptr<WordPiece>> tokenizer =
      WordPiece::Create(std::move(vocab), std::move(options));
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), fields.where());
  return std::unique_ptr<Tokenizer>(std::move(*tokenizer));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadWordPieceVocab(const std::string& directory) {
  const std::string path = directory + "/vocab.txt";
  const std::string config_path = directory + "/tokenizer_config.json";
  WordPieceOptions options;
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ReadOptionalJson(config_path));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, config_path));
  DIMMER_RETURN_IF_ERROR(
      ReadNormalizer(fields, "do_lower_case", "tokenize_chinese_chars", options.normalizer));
  DIMMER_RETURN_IF_ERROR(ReadSpecialTokens(fields, options));
  DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  absl::StatusOr<std::unique_ptr<WordPiece>> tokenizer =
      WordPiece::Create(SplitLines(text), std::move(options));
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), path);
  return std::unique_ptr<Tokenizer>(std::move(*tokenizer));
}

}  // namespace dimmer
