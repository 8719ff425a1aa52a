#include "engine/text/llama2c_tokenizer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <utility>

#include "engine/package/json_fields.h"
#include "engine/text/utf8.h"
#include "engine/text/vocab_files.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

static_assert(std::endian::native == std::endian::little, "the file's numbers are little endian");

constexpr int32_t kMaxTokenBytes = 512;  // of a file; the longest token of Llama 2 has 27
constexpr int32_t kUnknownId = 0, kStartId = 1, kEndId = 2, kFirstByteId = 3;
constexpr size_t kFirstPiece = kFirstByteId + 256;

// Reads numbers and bytes off the front.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  bool done() const { return rest_.empty(); }

  template <typename T>
  std::optional<T> Number() {
    if (rest_.size() < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return value;
  }
  std::optional<std::string_view> Bytes(size_t count) {
    if (rest_.size() < count) return std::nullopt;
    const std::string_view bytes = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return bytes;
  }

 private:
  std::string_view rest_;
};

struct Piece {
  float score = 0;
  std::string_view text;
};

absl::StatusOr<std::vector<Piece>> ReadPieces(std::string_view bytes, const std::string& path) {
  Reader reader(bytes);
  const std::optional<int32_t> longest = reader.Number<int32_t>();
  if (!longest || *longest < 1 || *longest > kMaxTokenBytes) {
    return absl::InvalidArgumentError(
        fmt::format("{}: max_token_length: found {}, expected 1 to {}", path,
                    longest ? fmt::format("{}", *longest) : "the end of the file", kMaxTokenBytes));
  }
  std::vector<Piece> pieces;
  while (!reader.done()) {
    const std::string where = fmt::format("{}: token {}", path, pieces.size());
    const std::optional<float> score = reader.Number<float>();
    const std::optional<int32_t> length = reader.Number<int32_t>();
    if (!score || !length) {
      return absl::InvalidArgumentError(
          fmt::format("{}: found the end of the file, expected a score and a length", where));
    }
    if (!std::isfinite(*score)) {
      return absl::InvalidArgumentError(
          fmt::format("{}: score: found {}, expected a finite number", where, *score));
    }
    if (*length < 1 || *length > *longest) {
      return absl::InvalidArgumentError(
          fmt::format("{}: length: found {}, expected 1 to {}", where, *length, *longest));
    }
    const std::optional<std::string_view> text = reader.Bytes(static_cast<size_t>(*length));
    if (!text || FindInvalidUtf8(*text)) {
      return absl::InvalidArgumentError(
          fmt::format("{}: found {}, expected {} bytes of UTF-8", where,
                      text ? "bytes that are not UTF-8" : "the end of the file", *length));
    }
    pieces.push_back({*score, *text});
  }
  return pieces;
}

// "\n<s>\n" is how the file writes "<s>".
absl::Status CheckFixedPieces(const std::vector<Piece>& pieces, const std::string& path) {
  if (pieces.size() < kFirstPiece) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {} tokens, expected at least {}", path, pieces.size(), kFirstPiece));
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    const size_t id = kFirstByteId + byte;
    const std::string expected = fmt::format("<0x{:02X}>", byte);
    if (pieces[id].text == expected) continue;
    return absl::InvalidArgumentError(fmt::format("{}: token {}: found \"{}\", expected \"{}\"",
                                                  path, id, pieces[id].text, expected));
  }
  return absl::OkStatus();
}

// All pairs of pieces that make a third one.
void AddMerges(const std::vector<Piece>& pieces, BpeOptions& options) {
  std::vector<float> scores;
  for (size_t i = kFirstPiece; i < pieces.size(); ++i) scores.push_back(pieces[i].score);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  const VocabIndex index(options.tokens);
  const auto piece_of = [&](std::string_view text) -> std::optional<int32_t> {
    const std::optional<int32_t> id = index.Find(text);
    return id && static_cast<size_t>(*id) >= kFirstPiece ? id : std::nullopt;
  };
  for (size_t i = kFirstPiece; i < pieces.size(); ++i) {
    const std::string_view token = options.tokens[i];
    const auto rank = static_cast<uint32_t>(
        std::lower_bound(scores.begin(), scores.end(), pieces[i].score, std::greater<>()) -
        scores.begin());
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const std::optional<int32_t> left = piece_of(token.substr(0, cut));
      const std::optional<int32_t> right = left ? piece_of(token.substr(cut)) : std::nullopt;
      if (right) options.merges.push_back({*left, *right, static_cast<int32_t>(i), rank});
    }
  }
  std::stable_sort(options.merges.begin(), options.merges.end(),
                   [](const BpeMerge& a, const BpeMerge& b) { return a.rank < b.rank; });
}

}  // namespace

absl::StatusOr<BpeOptions> ParseLlama2cTokenizer(std::string_view bytes, const std::string& path) {
  DIMMER_ASSIGN_OR_RETURN(const std::vector<Piece> pieces, ReadPieces(bytes, path));
  DIMMER_RETURN_IF_ERROR(CheckFixedPieces(pieces, path));
  BpeOptions options;
  options.units = BpeUnits::kCharacters;
  for (const Piece& piece : pieces) options.tokens.push_back(WithSentencePieceBlanks(piece.text));
  options.tokens[kUnknownId] = "<unk>";
  options.tokens[kStartId] = "<s>";
  options.tokens[kEndId] = "</s>";
  // Special, but not to be found in a text: there is no text to look for.
  for (const int32_t id : {kUnknownId, kStartId, kEndId}) {
    options.added.push_back({.content = "", .id = id, .special = true});
  }
  AddMerges(pieces, options);
  options.prefix = BlankPrefix::kAlways;
  options.drops_first_blank = true;
  options.byte_fallback = true;
  options.unknown = kUnknownId;
  options.bos = kStartId;
  options.eos = kEndId;
  using enum TextTemplate::What;
  options.around.single = {{kToken, kStartId, 0}, {kFirst, 0, 0}};
  options.around.pair = {
      {kToken, kStartId, 0}, {kFirst, 0, 0}, {kToken, kStartId, 1}, {kSecond, 0, 1}};
  return options;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadLlama2cTokenizer(const std::string& path) {
  DIMMER_ASSIGN_OR_RETURN(const std::string bytes, ReadTextFile(path));
  DIMMER_ASSIGN_OR_RETURN(BpeOptions options, ParseLlama2cTokenizer(bytes, path));
  absl::StatusOr<std::unique_ptr<BpeTokenizer>> tokenizer =
      BpeTokenizer::Create(std::move(options));
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), path);
  return std::unique_ptr<Tokenizer>(std::move(*tokenizer));
}

}  // namespace dimmer
