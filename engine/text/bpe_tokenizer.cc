#include "engine/text/bpe_tokenizer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/text/byte_alphabet.h"
#include "engine/text/gpt2_words.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr int32_t kUnknown = -1;  // a symbol that has no token

size_t CharacterLength(char first) {
  const auto byte = static_cast<unsigned char>(first);
  if (byte < 0x80) return 1;
  if (byte < 0xe0) return 2;
  return byte < 0xf0 ? 3 : 4;
}

// The bytes of a character as a number.
uint32_t CharacterKey(std::string_view character) {
  uint32_t key = 0;
  std::memcpy(&key, character.data(), std::min(character.size(), sizeof(key)));
  return key;
}

// The byte of "<0x0A>", or nothing.
std::optional<unsigned char> ByteOfToken(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  unsigned value = 0;
  for (const char c : token.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && (c < 'A' || c > 'F')) return std::nullopt;
    value = value * 16 + static_cast<unsigned>(digit ? c - '0' : c - 'A' + 10);
  }
  return static_cast<unsigned char>(value);
}

std::string WithPlainBlanks(std::string_view token) {
  std::string text;
  for (size_t at = 0; at < token.size();) {
    const size_t blank = std::min(token.find(kSentencePieceBlank, at), token.size());
    text += token.substr(at, blank - at);
    if (blank < token.size()) text += ' ';
    at = blank + kSentencePieceBlank.size();
  }
  return text;
}

// A blank after another character, from where on a word of its own begins.
bool HasInnerBlank(std::string_view token) {
  size_t at = 0;
  while (token.substr(at).starts_with(kSentencePieceBlank)) at += kSentencePieceBlank.size();
  return token.find(kSentencePieceBlank, at) != std::string_view::npos;
}

bool AnyMergeHasInnerBlank(const BpeOptions& options) {
  return std::any_of(options.merges.begin(), options.merges.end(), [&](const BpeMerge& merge) {
    return HasInnerBlank(options.tokens[static_cast<size_t>(merge.result)]);
  });
}

}  // namespace

std::string WithSentencePieceBlanks(std::string_view text) {
  std::string blanks;
  blanks.reserve(text.size() + text.size() / 2);
  for (const char c : text) {
    if (c == ' ') {
      blanks += kSentencePieceBlank;
    } else {
      blanks += c;
    }
  }
  return blanks;
}

BpeTokenizer::BpeTokenizer(BpeOptions options)
    : options_(std::move(options)), merges_(options_.merges) {
  byte_ids_.fill(kUnknown);
}

absl::StatusOr<std::unique_ptr<BpeTokenizer>> BpeTokenizer::Create(BpeOptions options) {
  std::unique_ptr<BpeTokenizer> tokenizer(new BpeTokenizer(std::move(options)));
  DIMMER_RETURN_IF_ERROR(tokenizer->CheckIds());
  DIMMER_RETURN_IF_ERROR(tokenizer->IndexTokens());
  DIMMER_RETURN_IF_ERROR(tokenizer->IndexBytes());
  tokenizer->IndexWords();
  // Numbers and views replace the merges from here on.
  tokenizer->options_.merges = {};
  return tokenizer;
}

absl::Status BpeTokenizer::CheckIds() const {
  const auto check = [&](const char* what, int32_t id) -> absl::Status {
    if (id >= 0 && static_cast<size_t>(id) < vocab_size()) return absl::OkStatus();
    return absl::InvalidArgumentError(fmt::format("{}: found id {}, expected 0 to {}", what, id,
                                                  static_cast<int64_t>(vocab_size()) - 1));
  };
  for (const BpeMerge& merge : options_.merges) {
    for (const int32_t id : {merge.left, merge.right, merge.result}) {
      DIMMER_RETURN_IF_ERROR(check("merges", id));
    }
  }
  for (const BpeOptions::Added& added : options_.added) {
    DIMMER_RETURN_IF_ERROR(check("added tokens", added.id));
  }
  for (const auto* pieces : {&options_.around.single, &options_.around.pair}) {
    for (const TextTemplate::Piece& piece : *pieces) {
      DIMMER_RETURN_IF_ERROR(check("tokens around a text", piece.id));
    }
  }
  for (const auto& id : {options_.unknown, options_.bos, options_.eos}) {
    if (id) DIMMER_RETURN_IF_ERROR(check("special tokens", *id));
  }
  return absl::OkStatus();
}

// bytes_, and what is found in a text as a whole.
absl::Status BpeTokenizer::IndexTokens() {
  const bool bytes = options_.units == BpeUnits::kBytes;
  absl::flat_hash_map<std::string_view, int32_t, Hash> seen;
  seen.reserve(vocab_size());
  bytes_.reserve(vocab_size());
  for (const std::string& token : options_.tokens) {
    if (!seen.emplace(token, 0).second) {
      return absl::InvalidArgumentError(fmt::format("vocabulary: token {} is there twice", token));
    }
    if (bytes) {
      bytes_.push_back(LettersToBytes(token).value_or(token));
      continue;
    }
    const std::optional<unsigned char> byte =
        options_.byte_fallback ? ByteOfToken(token) : std::nullopt;
    bytes_.push_back(byte ? std::string(1, static_cast<char>(*byte)) : WithPlainBlanks(token));
  }
  std::vector<AddedTokens::Token> raw, normalized;
  for (const BpeOptions::Added& added : options_.added) {
    bytes_[static_cast<size_t>(added.id)] = added.special ? "" : added.content;
    if (added.normalized && options_.prefix == BlankPrefix::kAlways) {
      normalized.push_back({WithSentencePieceBlanks(" " + added.content), added.id});
    } else {
      raw.push_back({added.content, added.id});
    }
  }
  added_ = AddedTokens(std::move(raw));
  normalized_added_ = AddedTokens(std::move(normalized));
  return absl::OkStatus();
}

// The smallest symbols: of bytes, and of characters.
absl::Status BpeTokenizer::IndexBytes() {
  const bool of_bytes = options_.units == BpeUnits::kBytes;
  for (size_t i = 0; i < vocab_size(); ++i) {
    const std::string& token = options_.tokens[i];
    const auto id = static_cast<int32_t>(i);
    if (token.empty()) continue;
    const bool one_character = token.size() == CharacterLength(token[0]);
    if (!of_bytes && one_character) characters_[CharacterKey(token)] = id;
    std::optional<unsigned char> byte;
    if (of_bytes && one_character) {
      const std::optional<std::string> bytes = LettersToBytes(token);
      if (bytes) byte = static_cast<unsigned char>(bytes->front());
    } else if (!of_bytes && options_.byte_fallback) {
      byte = ByteOfToken(token);
    }
    if (byte) byte_ids_[*byte] = id;
  }
  if (options_.unknown || (!of_bytes && !options_.byte_fallback)) {
    if (options_.unknown) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "vocabulary: found neither an unknown token nor byte fallback, expected one of them");
  }
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    if (byte_ids_[byte] != kUnknown) continue;
    return absl::InvalidArgumentError(
        fmt::format("vocabulary: found no token for byte 0x{:02x} and no unknown token, expected "
                    "one of them",
                    byte));
  }
  return absl::OkStatus();
}

void BpeTokenizer::IndexWords() {
  words_end_at_blanks_ =
      characters_.contains(CharacterKey(kSentencePieceBlank)) && !AnyMergeHasInnerBlank(options_);
  Scratch scratch;
  words_.reserve(vocab_size());
  for (size_t i = 0; i < vocab_size(); ++i) {
    const std::string& token = options_.tokens[i];
    std::string_view word = token;
    if (options_.units == BpeUnits::kBytes) {
      if (!LettersToBytes(token)) continue;
      word = bytes_[i];
    }
    if (word.empty()) continue;
    SetSymbols(word, scratch.symbols);
    merges_.Apply(scratch.symbols, scratch.merges);
    if (scratch.symbols.size() != 1 || scratch.symbols[0] != static_cast<int32_t>(i)) continue;
    words_.emplace(word, static_cast<int32_t>(i));
    longest_word_ = std::max(longest_word_, word.size());
  }
}

absl::StatusOr<Encoding> BpeTokenizer::Encode(std::string_view text,
                                              std::optional<std::string_view> pair,
                                              const EncodeOptions& options) const {
  DIMMER_RETURN_IF_ERROR(CheckUtf8(text, "text"));
  if (pair) DIMMER_RETURN_IF_ERROR(CheckUtf8(*pair, "text_pair"));
  std::vector<int32_t> a = Tokenize(text);
  std::vector<int32_t> b = pair ? Tokenize(*pair) : std::vector<int32_t>();
  return Assemble(std::move(a), std::move(b), pair.has_value(), options_.around, options);
}

std::string_view BpeTokenizer::TokenOf(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= vocab_size()) return {};
  return options_.tokens[static_cast<size_t>(id)];
}

std::string_view BpeTokenizer::BytesOf(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= vocab_size()) return {};
  return bytes_[static_cast<size_t>(id)];
}

std::vector<int32_t> BpeTokenizer::Tokenize(std::string_view text) const {
  Scratch scratch;
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 2);
  size_t begin = 0;
  while (const std::optional<AddedTokens::Match> added = added_.Find(text, begin)) {
    AppendPart(text.substr(begin, added->begin - begin), begin == 0, scratch, ids);
    ids.push_back(added->id);
    begin = added->end;
  }
  AppendPart(text.substr(begin), begin == 0, scratch, ids);
  return ids;
}

// A part of the text between added tokens.
void BpeTokenizer::AppendPart(std::string_view part, bool at_start, Scratch& scratch,
                              std::vector<int32_t>& ids) const {
  if (part.empty()) return;
  const bool of_bytes = options_.units == BpeUnits::kBytes;
  std::string buffer;
  if (!of_bytes) {
    buffer = WithSentencePieceBlanks(part);
    part = buffer;
  }
  const std::string_view blank = of_bytes ? " " : kSentencePieceBlank;
  const bool unless_there = options_.prefix == BlankPrefix::kUnlessThere ||
                            (options_.prefix == BlankPrefix::kUnlessThereAtStart && at_start);
  if (options_.prefix == BlankPrefix::kAlways || (unless_there && !part.starts_with(blank))) {
    buffer = std::string(blank).append(part);
    part = buffer;
  }
  size_t begin = 0;
  while (const std::optional<AddedTokens::Match> added = normalized_added_.Find(part, begin)) {
    AppendNormalized(part.substr(begin, added->begin - begin), scratch, ids);
    ids.push_back(added->id);
    begin = added->end;
  }
  AppendNormalized(part.substr(begin), scratch, ids);
}

void BpeTokenizer::AppendNormalized(std::string_view text, Scratch& scratch,
                                    std::vector<int32_t>& ids) const {
  while (!text.empty()) {
    const size_t length = WordLength(text);
    AppendWord(text.substr(0, length), scratch, ids);
    text.remove_prefix(length);
  }
}

size_t BpeTokenizer::WordLength(std::string_view text) const {
  if (options_.units == BpeUnits::kBytes) return FirstGpt2Word(text);
  if (options_.split_at_blanks) return std::min(text.find(kSentencePieceBlank, 1), text.size());
  if (!words_end_at_blanks_) return text.size();
  size_t at = 0;
  while (text.substr(at).starts_with(kSentencePieceBlank)) at += kSentencePieceBlank.size();
  return std::min(text.find(kSentencePieceBlank, at), text.size());
}

void BpeTokenizer::AppendWord(std::string_view word, Scratch& scratch,
                              std::vector<int32_t>& ids) const {
  if (word.size() <= longest_word_) {
    const auto it = words_.find(word);
    if (it != words_.end()) {
      ids.push_back(it->second);
      return;
    }
  }
  SetSymbols(word, scratch.symbols);
  merges_.Apply(scratch.symbols, scratch.merges);
  int32_t last = 0;
  for (const int32_t id : scratch.symbols) {
    const bool fused = id == kUnknown && last == kUnknown && options_.fuse_unknown;
    if (!fused) ids.push_back(id == kUnknown ? *options_.unknown : id);
    last = id;
  }
}

void BpeTokenizer::SetSymbols(std::string_view word, std::vector<int32_t>& symbols) const {
  symbols.clear();
  if (options_.units == BpeUnits::kBytes) {
    for (const char c : word) symbols.push_back(byte_ids_[static_cast<unsigned char>(c)]);
    return;
  }
  while (!word.empty()) {
    const size_t length = std::min(CharacterLength(word[0]), word.size());
    AppendCharacter(word.substr(0, length), symbols);
    word.remove_prefix(length);
  }
}

// Its token, else its bytes' tokens if all of them exist, else unknown.
void BpeTokenizer::AppendCharacter(std::string_view character,
                                   std::vector<int32_t>& symbols) const {
  const auto it = characters_.find(CharacterKey(character));
  if (it != characters_.end()) {
    symbols.push_back(it->second);
    return;
  }
  const auto id_of = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
  const bool spelled =
      std::all_of(character.begin(), character.end(), [&](char c) { return id_of(c) != kUnknown; });
  if (!spelled) {
    symbols.push_back(kUnknown);
    return;
  }
  for (const char c : character) symbols.push_back(id_of(c));
}

}  // namespace dimmer
