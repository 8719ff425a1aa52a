// WordPiece (Wu et al., 2016) as BERT uses it: greedy longest match over the words that
// BertNormalizer leaves, continuing pieces with a prefix such as "##".
#ifndef DIMMER_ENGINE_TEXT_WORDPIECE_H_
#define DIMMER_ENGINE_TEXT_WORDPIECE_H_

#include <absl/container/flat_hash_map.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/added_tokens.h"
#include "engine/text/bert_normalizer.h"
#include "engine/text/encoding.h"
#include "engine/text/tokenizer.h"

namespace dimmer {

struct WordPieceOptions {
  BertNormalizerOptions normalizer;
  std::string continuing_prefix = "##";
  std::string unknown_token = "[UNK]";
  std::string start_token = "[CLS]";
  std::string end_token = "[SEP]";
  // Tokens that are matched in the raw text before anything else, e.g. "[MASK]".
  std::vector<std::string> special_tokens = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
  size_t max_word_characters = 100;  // a longer word is one unknown token
};

class WordPiece : public Tokenizer {
 public:
  // `vocab[id]` is the token of that id. InvalidArgument if a token is there twice or one of those
  // named in `options` (special_tokens apart, which may be absent) is missing.
  static absl::StatusOr<std::unique_ptr<WordPiece>> Create(std::vector<std::string> vocab,
                                                           WordPieceOptions options);

  absl::StatusOr<Encoding> Encode(std::string_view text, std::optional<std::string_view> pair,
                                  const EncodeOptions& options) const override;
  std::string_view TokenOf(int32_t id) const override;
  std::string_view BytesOf(int32_t id) const override;
  size_t vocab_size() const override { return vocab_.size(); }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const {
      return absl::Hash<absl::string_view>()(absl::string_view(text.data(), text.size()));
    }
  };
  using Pieces = absl::flat_hash_map<std::string, int32_t, Hash, std::equal_to<>>;

  WordPiece() = default;
  // Appends the tokens of `text`; once there are `enough` it may stop, and returns false.
  bool Tokenize(std::string_view text, size_t enough, std::vector<int32_t>& ids) const;
  bool TokenizePlain(std::string_view text, size_t enough, std::vector<int32_t>& ids) const;
  void TokenizePart(std::string_view text, size_t enough, std::vector<int32_t>& ids) const;
  void TokenizeAscii(std::string_view text, size_t enough, std::vector<int32_t>& ids) const;
  void TokenizeUnicode(std::string_view text, size_t enough, std::vector<int32_t>& ids) const;
  void AppendWord(std::string_view word, size_t characters, std::vector<int32_t>& ids) const;

  WordPieceOptions options_;
  std::vector<std::string> vocab_;
  Pieces first_;              // pieces that start a word
  Pieces continuing_;         // pieces that go on, without their prefix
  size_t longest_first_ = 0;  // bytes
  size_t longest_continuing_ = 0;
  AddedTokens specials_;
  std::vector<bool> is_special_;  // by id
  TextTemplate around_;
  int32_t unknown_ = 0;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_WORDPIECE_H_
