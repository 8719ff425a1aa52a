// Byte-pair encoding in its two common forms: over bytes (GPT-2) and over characters with blanks
// written as U+2581 and unknown characters spelled in byte tokens (SentencePiece's BPE, Llama).
#ifndef DIMMER_ENGINE_TEXT_BPE_TOKENIZER_H_
#define DIMMER_ENGINE_TEXT_BPE_TOKENIZER_H_

#include <absl/container/flat_hash_map.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/added_tokens.h"
#include "engine/text/bpe_merges.h"
#include "engine/text/encoding.h"
#include "engine/text/tokenizer.h"

namespace dimmer {

enum class BpeUnits : uint8_t {
  kBytes,       // words as GPT-2 splits them (engine/text/gpt2_words.h), merged from bytes
  kCharacters,  // the whole text, or its words, merged from characters
};

// The blank that is put before a text that has characters.
enum class BlankPrefix : uint8_t {
  kNone,
  kUnlessThere,         // if the text, or a part between added tokens, does not start with one
  kUnlessThereAtStart,  // the same, but not for a part after an added token
  kAlways,              // of the text and of every part between added tokens
};

struct BpeOptions {
  struct Added {
    std::string content;
    int32_t id = 0;
    bool special = false;     // has no text
    bool normalized = false;  // found in the normalized text, itself normalized (kAlways only)
  };

  BpeUnits units = BpeUnits::kBytes;
  std::vector<std::string> tokens;  // by id, as the files write them, added ones included
  std::vector<BpeMerge> merges;
  std::vector<Added> added;  // those to be found in the text
  BlankPrefix prefix = BlankPrefix::kNone;
  // kCharacters:
  bool split_at_blanks = false;  // every blank starts a word
  bool byte_fallback = false;    // an unknown character is its bytes' tokens, "<0x0A>"
  bool fuse_unknown = false;     // neighbouring unknown characters of a word are one token
  bool drops_first_blank = false;
  std::optional<int32_t> unknown;  // the token of what has none
  TextTemplate around;
  std::optional<int32_t> bos, eos;
};

// Immutable; safe for concurrent use. Encode() takes O(n log n) for n bytes, whatever they are.
class BpeTokenizer : public Tokenizer {
 public:
  // InvalidArgument: a token twice, an id out of range, or a byte or character that would have no
  // token.
  static absl::StatusOr<std::unique_ptr<BpeTokenizer>> Create(BpeOptions options);

  absl::StatusOr<Encoding> Encode(std::string_view text, std::optional<std::string_view> pair,
                                  const EncodeOptions& options) const override;
  std::string_view TokenOf(int32_t id) const override;
  std::string_view BytesOf(int32_t id) const override;
  size_t vocab_size() const override { return options_.tokens.size(); }
  std::optional<int32_t> bos_id() const override { return options_.bos; }
  std::optional<int32_t> eos_id() const override { return options_.eos; }
  bool drops_first_blank() const override { return options_.drops_first_blank; }

 private:
  struct Hash {
    size_t operator()(std::string_view text) const {
      return absl::Hash<absl::string_view>()(absl::string_view(text.data(), text.size()));
    }
  };
  struct Scratch {
    std::vector<int32_t> symbols;
    BpeMerges::Scratch merges;
  };

  explicit BpeTokenizer(BpeOptions options);
  absl::Status CheckIds() const;
  absl::Status IndexTokens();
  absl::Status IndexBytes();
  void IndexWords();

  std::vector<int32_t> Tokenize(std::string_view text) const;
  void AppendPart(std::string_view part, bool at_start, Scratch& scratch,
                  std::vector<int32_t>& ids) const;
  void AppendNormalized(std::string_view text, Scratch& scratch, std::vector<int32_t>& ids) const;
  void AppendWord(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;
  void SetSymbols(std::string_view word, std::vector<int32_t>& symbols) const;
  void AppendCharacter(std::string_view character, std::vector<int32_t>& symbols) const;
  size_t WordLength(std::string_view text) const;

  BpeOptions options_;
  BpeMerges merges_;
  AddedTokens added_, normalized_added_;
  std::vector<std::string> bytes_;  // by id
  std::array<int32_t, 256> byte_ids_ = {};
  absl::flat_hash_map<uint32_t, int32_t> characters_;  // by their UTF-8 bytes
  // Words, as AppendWord() sees them, that merge into one token. Views of tokens_ and bytes_.
  absl::flat_hash_map<std::string_view, int32_t, Hash> words_;
  size_t longest_word_ = 0;
  bool words_end_at_blanks_ = false;  // no merge reaches from a character to a blank after it
};

// U+2581, SentencePiece's blank, in UTF-8.
inline constexpr std::string_view kSentencePieceBlank = "\xe2\x96\x81";

// "a b" to "a▁b", as kCharacters writes it.
std::string WithSentencePieceBlanks(std::string_view text);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_BPE_TOKENIZER_H_
