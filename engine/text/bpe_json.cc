// BPE from tokenizer.json, as the tokenizers library of Hugging Face writes it.
#include <algorithm>
#include <utility>

#include "engine/text/bpe_files.h"
#include "engine/text/bpe_tokenizer.h"
#include "engine/text/vocab_files.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

using Json = nlohmann::json;

absl::Status NotSupported(const JsonFields& fields, std::string_view key, std::string_view found,
                          std::string_view expected) {
  return absl::UnimplementedError(
      fmt::format("{}: {}: found {}, expected {}", fields.where(), key, found, expected));
}

// The steps of a component: none if it is null, those of a "Sequence" (its `list`), or itself.
absl::StatusOr<std::vector<JsonFields>> Steps(const JsonFields& fields, std::string_view key,
                                              std::string_view list) {
  std::vector<JsonFields> steps;
  if (!fields.Has(key)) return steps;
  DIMMER_ASSIGN_OR_RETURN(const JsonFields object, fields.Object(key));
  DIMMER_ASSIGN_OR_RETURN(const std::string type, object.String("type"));
  if (type == "Sequence") return object.Objects(list);
  steps.push_back(object);
  return steps;
}

// "Prepend" and "Replace", Llama's. Says what there was of the two.
struct Normalizer {
  bool prepends = false;
  bool replaces = false;
};

absl::StatusOr<Normalizer> ReadNormalizer(const JsonFields& fields) {
  Normalizer normalizer;
  DIMMER_ASSIGN_OR_RETURN(const auto steps, Steps(fields, "normalizer", "normalizers"));
  for (const JsonFields& step : steps) {
    DIMMER_ASSIGN_OR_RETURN(const std::string type, step.String("type"));
    if (type == "Prepend") {
      DIMMER_ASSIGN_OR_RETURN(const std::string what, step.String("prepend"));
      if (what != kSentencePieceBlank) {
        return NotSupported(step, "prepend", what, kSentencePieceBlank);
      }
      normalizer.prepends = true;
    } else if (type == "Replace") {
      DIMMER_ASSIGN_OR_RETURN(const JsonFields pattern, step.Object("pattern"));
      DIMMER_ASSIGN_OR_RETURN(const std::string from, pattern.String("String"));
      DIMMER_ASSIGN_OR_RETURN(const std::string to, step.String("content"));
      if (from != " " || to != kSentencePieceBlank) {
        return NotSupported(step, "content", fmt::format("{} for \"{}\"", to, from),
                            fmt::format("{} for a blank", kSentencePieceBlank));
      }
      normalizer.replaces = true;
    } else {
      return NotSupported(step, "type", type, "Prepend or Replace");
    }
  }
  return normalizer;
}

// Metaspace as pre-tokenizer or decoder.
absl::StatusOr<BlankPrefix> ReadMetaspacePrefix(const JsonFields& step) {
  DIMMER_ASSIGN_OR_RETURN(const std::string blank,
                          step.String("replacement", std::string(kSentencePieceBlank)));
  if (blank != kSentencePieceBlank) {
    return NotSupported(step, "replacement", blank, kSentencePieceBlank);
  }
  DIMMER_ASSIGN_OR_RETURN(const bool adds, step.Bool("add_prefix_space", true));
  DIMMER_ASSIGN_OR_RETURN(const std::string scheme,
                          step.String("prepend_scheme", adds ? "always" : "never"));
  if (scheme == "always") return BlankPrefix::kUnlessThere;
  if (scheme == "first") return BlankPrefix::kUnlessThereAtStart;
  if (scheme == "never") return BlankPrefix::kNone;
  return NotSupported(step, "prepend_scheme", scheme, "always, first or never");
}

absl::Status ReadByteLevel(const JsonFields& step, BpeOptions& options) {
  options.units = BpeUnits::kBytes;
  DIMMER_ASSIGN_OR_RETURN(const bool adds, step.Bool("add_prefix_space"));
  options.prefix = adds ? BlankPrefix::kUnlessThere : BlankPrefix::kNone;
  DIMMER_ASSIGN_OR_RETURN(const bool regex, step.Bool("use_regex", true));
  return regex ? absl::OkStatus() : NotSupported(step, "use_regex", "false", "true");
}

// Normalizer and pre-tokenizer: how a text becomes words.
absl::Status ReadWords(const JsonFields& fields, BpeOptions& options) {
  DIMMER_ASSIGN_OR_RETURN(const Normalizer normalizer, ReadNormalizer(fields));
  DIMMER_ASSIGN_OR_RETURN(const auto steps, Steps(fields, "pre_tokenizer", "pretokenizers"));
  if (steps.size() > 1) {
    return NotSupported(fields, "pre_tokenizer", fmt::format("a sequence of {}", steps.size()),
                        "one of ByteLevel or Metaspace");
  }
  std::string type;
  if (!steps.empty()) {
    DIMMER_ASSIGN_OR_RETURN(type, steps[0].String("type"));
  }
  if (type == "ByteLevel") {
    if (normalizer.prepends || normalizer.replaces) {
      return NotSupported(fields, "normalizer", "one before ByteLevel", "null");
    }
    return ReadByteLevel(steps[0], options);
  }
  options.units = BpeUnits::kCharacters;
  if (type == "Metaspace") {
    DIMMER_ASSIGN_OR_RETURN(options.prefix, ReadMetaspacePrefix(steps[0]));
    DIMMER_ASSIGN_OR_RETURN(options.split_at_blanks, steps[0].Bool("split", true));
  } else if (!steps.empty()) {
    return NotSupported(steps[0], "type", type, "ByteLevel or Metaspace");
  } else if (!normalizer.replaces) {
    return NotSupported(fields, "normalizer", "none and no pre_tokenizer",
                        fmt::format("one that writes blanks as {}", kSentencePieceBlank));
  }
  if (normalizer.prepends) options.prefix = BlankPrefix::kAlways;
  return absl::OkStatus();
}

absl::Status ReadDecoder(const JsonFields& fields, BpeOptions& options) {
  if (options.units == BpeUnits::kBytes) return absl::OkStatus();
  options.drops_first_blank = options.prefix != BlankPrefix::kNone && !fields.Has("decoder");
  DIMMER_ASSIGN_OR_RETURN(const auto steps, Steps(fields, "decoder", "decoders"));
  for (const JsonFields& step : steps) {
    DIMMER_ASSIGN_OR_RETURN(const std::string type, step.String("type"));
    if (type == "Strip") {
      DIMMER_ASSIGN_OR_RETURN(const int64_t start, step.Int("start", 0, 1, 0));
      options.drops_first_blank |= start == 1;
    } else if (type == "Metaspace") {
      DIMMER_ASSIGN_OR_RETURN(const BlankPrefix prefix, ReadMetaspacePrefix(step));
      options.drops_first_blank |= prefix != BlankPrefix::kNone;
    }
  }
  return absl::OkStatus();
}

absl::Status ReadMerges(const JsonFields& model, const VocabIndex& index, BpeOptions& options) {
  const auto it = model.json().find("merges");
  if (it == model.json().end() || !it->is_array()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: merges: found {}, expected an array", model.where(),
                    it == model.json().end() ? "nothing" : it->type_name()));
  }
  const Json& merges = *it;
  options.merges.reserve(merges.size());
  for (const Json& merge : merges) {
    const auto rank = static_cast<uint32_t>(options.merges.size());
    const std::string where = fmt::format("{}: merges[{}]", model.where(), rank);
    std::string left, right;  // "a b" or, newer, ["a", "b"]
    if (merge.is_string()) {
      const std::string& text = merge.get_ref<const std::string&>();
      const size_t blank = text.find(' ');
      left = text.substr(0, blank);
      if (blank != std::string::npos) right = text.substr(blank + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    }
    if (left.empty() || right.empty()) {
      return absl::InvalidArgumentError(
          fmt::format("{}: found {}, expected two tokens", where,
                      merge.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 80)));
    }
    DIMMER_ASSIGN_OR_RETURN(const BpeMerge found, FindMerge(index, left, right, rank, where));
    options.merges.push_back(found);
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const JsonFields& model, BpeOptions& options) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    DIMMER_ASSIGN_OR_RETURN(const std::string affix, model.String(key, ""));
    if (!affix.empty()) return NotSupported(model, key, affix, "null");
  }
  DIMMER_ASSIGN_OR_RETURN(const double dropout, model.Number("dropout", 0, 1, 0));
  if (dropout > 0) return NotSupported(model, "dropout", fmt::format("{:g}", dropout), "null");
  DIMMER_ASSIGN_OR_RETURN(const bool ignores, model.Bool("ignore_merges", false));
  if (ignores) return NotSupported(model, "ignore_merges", "true", "false");
  DIMMER_ASSIGN_OR_RETURN(options.byte_fallback, model.Bool("byte_fallback", false));
  DIMMER_ASSIGN_OR_RETURN(options.fuse_unknown, model.Bool("fuse_unk", false));
  if (options.units == BpeUnits::kBytes && options.byte_fallback) {
    return NotSupported(model, "byte_fallback", "true with ByteLevel", "false");
  }
  DIMMER_ASSIGN_OR_RETURN(const JsonFields vocab, model.Object("vocab"));
  DIMMER_ASSIGN_OR_RETURN(options.tokens, ReadVocab(vocab));
  const VocabIndex index(options.tokens);
  DIMMER_ASSIGN_OR_RETURN(const std::string unknown, model.String("unk_token", ""));
  if (!unknown.empty()) {
    DIMMER_ASSIGN_OR_RETURN(options.unknown,
                            FindToken(index, unknown, model.where() + ": unk_token"));
  }
  return ReadMerges(model, index, options);
}

absl::Status ReadTemplate(const JsonFields& post, const char* key,
                          std::vector<TextTemplate::Piece>& pieces) {
  DIMMER_ASSIGN_OR_RETURN(const auto items, post.Objects(key));
  pieces.clear();
  for (const JsonFields& item : items) {
    const bool is_text = item.Has("Sequence");
    DIMMER_ASSIGN_OR_RETURN(const JsonFields piece,
                            item.Object(is_text ? "Sequence" : "SpecialToken"));
    DIMMER_ASSIGN_OR_RETURN(const std::string id, piece.String("id"));
    DIMMER_ASSIGN_OR_RETURN(const int64_t type_id, piece.Int("type_id", 0, 1, 0));
    const auto type = static_cast<int32_t>(type_id);
    if (is_text) {
      using enum TextTemplate::What;
      pieces.push_back({id == "B" ? kSecond : kFirst, 0, type});
      continue;
    }
    DIMMER_ASSIGN_OR_RETURN(const JsonFields tokens, post.Object("special_tokens"));
    DIMMER_ASSIGN_OR_RETURN(const JsonFields token, tokens.Object(id));
    DIMMER_ASSIGN_OR_RETURN(const std::vector<double> ids, token.Numbers("ids"));
    for (const double value : ids) {
      if (!(value >= 0 && value < INT32_MAX)) {
        return absl::InvalidArgumentError(
            fmt::format("{}: ids: found {:g}, expected a token's id", token.where(), value));
      }
      pieces.push_back({TextTemplate::What::kToken, static_cast<int32_t>(value), type});
    }
  }
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const JsonFields& fields, BpeOptions& options) {
  DIMMER_ASSIGN_OR_RETURN(const auto steps, Steps(fields, "post_processor", "processors"));
  for (const JsonFields& step : steps) {
    DIMMER_ASSIGN_OR_RETURN(const std::string type, step.String("type"));
    if (type == "ByteLevel") continue;  // about offsets
    if (type != "TemplateProcessing") {
      return NotSupported(step, "type", type, "ByteLevel or TemplateProcessing");
    }
    DIMMER_RETURN_IF_ERROR(ReadTemplate(step, "single", options.around.single));
    DIMMER_RETURN_IF_ERROR(ReadTemplate(step, "pair", options.around.pair));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadBpeJson(const std::string& directory,
                                                       const JsonFields& fields) {
  BpeOptions options;
  DIMMER_RETURN_IF_ERROR(ReadWords(fields, options));
  DIMMER_RETURN_IF_ERROR(ReadDecoder(fields, options));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields model, fields.Object("model"));
  DIMMER_RETURN_IF_ERROR(ReadModel(model, options));
  DIMMER_ASSIGN_OR_RETURN(const auto added, ReadAddedTokens(fields, options.tokens));
  for (const AddedTokenEntry& token : added) {
    options.added.push_back({token.content, token.id, token.special, token.normalized});
  }
  DIMMER_RETURN_IF_ERROR(ReadPostProcessor(fields, options));
  DIMMER_RETURN_IF_ERROR(ApplyTokenizerConfig(directory, BpeSource::kTokenizerJson, options));
  absl::StatusOr<std::unique_ptr<BpeTokenizer>> tokenizer =
      BpeTokenizer::Create(std::move(options));
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), fields.where());
  return std::unique_ptr<Tokenizer>(std::move(*tokenizer));
}

}  // namespace dimmer
