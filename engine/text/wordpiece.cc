#include "engine/text/wordpiece.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "engine/text/utf8.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr size_t kAllTokens = std::numeric_limits<size_t>::max();
// A text that will be cut is tokenized in parts of about this size.
constexpr size_t kPartBytes = 4096;

// What becomes of an ASCII byte: dropped, a blank, punctuation, or the byte itself.
enum class AsciiKind : uint8_t { kDrop, kSpace, kPunctuation, kWord };

constexpr std::array<AsciiKind, 128> MakeAsciiKinds() {
  std::array<AsciiKind, 128> kinds = {};
  for (size_t c = 0; c < 128; ++c) {
    const bool blank = c == ' ' || c == '\t' || c == '\n' || c == '\r';
    const bool alphanumeric =
        (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (blank) {
      kinds[c] = AsciiKind::kSpace;
    } else if (c < 0x20 || c == 0x7f) {
      kinds[c] = AsciiKind::kDrop;
    } else {
      kinds[c] = alphanumeric ? AsciiKind::kWord : AsciiKind::kPunctuation;
    }
  }
  return kinds;
}
constexpr std::array<AsciiKind, 128> kAsciiKinds = MakeAsciiKinds();

}  // namespace

absl::StatusOr<std::unique_ptr<WordPiece>> WordPiece::Create(std::vector<std::string> vocab,
                                                             WordPieceOptions options) {
  std::unique_ptr<WordPiece> tokenizer(new WordPiece());
  WordPiece& t = *tokenizer;
  t.options_ = std::move(options);
  t.vocab_ = std::move(vocab);
  const std::string& prefix = t.options_.continuing_prefix;
  t.first_.reserve(t.vocab_.size());
  for (size_t i = 0; i < t.vocab_.size(); ++i) {
    const std::string_view token = t.vocab_[i];
    const bool continues = !prefix.empty() && token.starts_with(prefix);
    // A word may also begin with the prefix itself, so first_ holds every token.
    if (!t.first_.emplace(token, static_cast<int32_t>(i)).second) {
      return absl::InvalidArgumentError(fmt::format("vocabulary: token {} is there twice", token));
    }
    t.longest_first_ = std::max(t.longest_first_, token.size());
    if (continues || prefix.empty()) {
      const std::string_view rest = token.substr(prefix.size());
      t.continuing_.emplace(rest, static_cast<int32_t>(i));
      t.longest_continuing_ = std::max(t.longest_continuing_, rest.size());
    }
  }
  int32_t start = 0, end = 0;
  const std::pair<const std::string*, int32_t*> wanted[] = {
      {&t.options_.unknown_token, &t.unknown_},
      {&t.options_.start_token, &start},
      {&t.options_.end_token, &end}};
  for (const auto& [token, id] : wanted) {
    const auto it = t.first_.find(*token);
    if (it == t.first_.end()) {
      return absl::InvalidArgumentError(fmt::format("vocabulary: token {} is missing", *token));
    }
    *id = it->second;
  }
  using enum TextTemplate::What;
  t.around_.single = {{kToken, start, 0}, {kFirst, 0, 0}, {kToken, end, 0}};
  t.around_.pair = t.around_.single;
  t.around_.pair.insert(t.around_.pair.end(), {{kSecond, 0, 1}, {kToken, end, 1}});
  t.is_special_.resize(t.vocab_.size());
  std::vector<AddedTokens::Token> specials;
  for (const std::string& token : t.options_.special_tokens) {
    const auto it = t.first_.find(token);
    if (token.empty() || it == t.first_.end()) continue;
    t.is_special_[static_cast<size_t>(it->second)] = true;
    specials.push_back({token, it->second});
  }
  t.specials_ = AddedTokens(std::move(specials));
  return tokenizer;
}

absl::StatusOr<Encoding> WordPiece::Encode(std::string_view text,
                                           std::optional<std::string_view> pair,
                                           const EncodeOptions& options) const {
  DIMMER_RETURN_IF_ERROR(CheckUtf8(text, "text"));
  if (pair) DIMMER_RETURN_IF_ERROR(CheckUtf8(*pair, "text_pair"));
  const size_t special = options.add_special_tokens ? (pair ? 3 : 2) : 0;
  // What is cut anyway need not be tokenized: one token more than there is room for says as much as
  // all of them do.
  const bool cuts = options.truncate && options.max_tokens > 0 && options.max_tokens >= special;
  const size_t enough = cuts ? options.max_tokens - special + 1 : kAllTokens;
  std::vector<int32_t> a, b;
  a.reserve(std::min(text.size() / 4 + 2, enough));
  const bool a_whole = Tokenize(text, enough, a);
  const bool b_whole = !pair || Tokenize(*pair, enough, b);
  if (!a_whole && !b_whole && enough % 2 == 0) {
    // An odd room is shared out by which of the two is longer.
    a.clear();
    b.clear();
    Tokenize(text, kAllTokens, a);
    Tokenize(*pair, kAllTokens, b);
  }

  return Assemble(std::move(a), std::move(b), pair.has_value(), around_, options);
}

std::string_view WordPiece::TokenOf(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < vocab_.size() ? std::string_view(vocab_[id])
                                                            : std::string_view();
}

std::string_view WordPiece::BytesOf(int32_t id) const {
  std::string_view token = TokenOf(id);
  if (token.empty() || is_special_[static_cast<size_t>(id)]) return {};
  const std::string& prefix = options_.continuing_prefix;
  if (token.starts_with(prefix)) token.remove_prefix(prefix.size());
  return token;
}

bool WordPiece::Tokenize(std::string_view text, size_t enough, std::vector<int32_t>& ids) const {
  size_t begin = 0;
  while (const std::optional<AddedTokens::Match> special = specials_.Find(text, begin)) {
    if (!TokenizePlain(text.substr(begin, special->begin - begin), enough, ids)) return false;
    ids.push_back(special->id);
    if (ids.size() >= enough) return false;
    begin = special->end;
  }
  return TokenizePlain(text.substr(begin), enough, ids);
}

bool WordPiece::TokenizePlain(std::string_view text, size_t enough,
                              std::vector<int32_t>& ids) const {
  while (enough != kAllTokens && text.size() > kPartBytes) {
    // Words end at a blank, and what the normalizer does to either side does not reach across it.
    const size_t blank = text.find(' ', kPartBytes);
    if (blank == std::string_view::npos) break;
    TokenizePart(text.substr(0, blank), enough, ids);
    if (ids.size() >= enough) return false;
    text.remove_prefix(blank);
  }
  TokenizePart(text, enough, ids);
  return ids.size() < enough;
}

void WordPiece::TokenizePart(std::string_view text, size_t enough,
                             std::vector<int32_t>& ids) const {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
  if (ascii && options_.normalizer.clean_text) {
    TokenizeAscii(text, enough, ids);
  } else {
    TokenizeUnicode(text, enough, ids);
  }
}

void WordPiece::TokenizeAscii(std::string_view text, size_t enough,
                              std::vector<int32_t>& ids) const {
  const bool lowercase = options_.normalizer.lowercase;
  std::string word;
  const auto flush = [&] {
    if (!word.empty()) AppendWord(word, word.size(), ids);
    word.clear();
  };
  for (const char c : text) {
    if (ids.size() >= enough) return;
    switch (kAsciiKinds[static_cast<unsigned char>(c)]) {
      case AsciiKind::kDrop:
        break;
      case AsciiKind::kSpace:
        flush();
        break;
      case AsciiKind::kPunctuation:
        flush();
        AppendWord(std::string_view(&c, 1), 1, ids);
        break;
      case AsciiKind::kWord:
        word.push_back(lowercase && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c);
        break;
    }
  }
  flush();
}

void WordPiece::TokenizeUnicode(std::string_view text, size_t enough,
                                std::vector<int32_t>& ids) const {
  std::u32string normalized;
  NormalizeBert(text, options_.normalizer, normalized);
  std::string word;
  size_t characters = 0;
  const auto flush = [&] {
    if (characters > 0) AppendWord(word, characters, ids);
    word.clear();
    characters = 0;
  };
  for (const char32_t c : normalized) {
    const CharClass kind = ClassOf(c);
    if (kind != CharClass::kWord) flush();
    if (ids.size() >= enough) return;
    if (kind == CharClass::kSpace) continue;
    AppendUtf8(c, word);
    ++characters;
    if (kind == CharClass::kPunctuation) flush();
  }
  flush();
}

void WordPiece::AppendWord(std::string_view word, size_t characters,
                           std::vector<int32_t>& ids) const {
  if (characters > options_.max_word_characters) {
    ids.push_back(unknown_);
    return;
  }
  const size_t before = ids.size();
  const Pieces* pieces = &first_;
  size_t longest = longest_first_;
  while (!word.empty()) {
    size_t length = std::min(word.size(), longest);
    const auto at_boundary = [&] {
      return length == word.size() || (static_cast<unsigned char>(word[length]) & 0xc0) != 0x80;
    };
    Pieces::const_iterator it = pieces->end();
    for (; length > 0; --length) {
      if (!at_boundary()) continue;
      it = pieces->find(word.substr(0, length));
      if (it != pieces->end()) break;
    }
    if (length == 0) {  // no piece fits: the whole word is unknown
      ids.resize(before);
      ids.push_back(unknown_);
      return;
    }
    ids.push_back(it->second);
    word.remove_prefix(length);
    pieces = &continuing_;
    longest = longest_continuing_;
  }
}

}  // namespace dimmer
