// Text to token ids, and back by the bytes that tokens stand for (engine/text/token_stream.h).
// Implementations are immutable and safe for concurrent use.
#ifndef DIMMER_ENGINE_TEXT_TOKENIZER_H_
#define DIMMER_ENGINE_TEXT_TOKENIZER_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dimmer {

struct EncodeOptions {
  bool add_special_tokens = true;
  size_t max_tokens = 0;  // 0: no limit. Counts special tokens.
  bool truncate = false;  // longer than max_tokens: cut (longest part first) instead of an error
};

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<int32_t> type_ids;  // segment per token: 0, or 1 for the second text of a pair
  bool truncated = false;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // InvalidArgument: `text` or `pair` is not UTF-8 (names the byte offset), or is longer than
  // options.max_tokens (names both lengths). An empty text is just the special tokens.
  virtual absl::StatusOr<Encoding> Encode(std::string_view text,
                                          std::optional<std::string_view> pair,
                                          const EncodeOptions& options) const = 0;
  // As the files write it, e.g. "##ing", "Ġthe", "▁the", "<0x0A>"; "" if out of range.
  virtual std::string_view TokenOf(int32_t id) const = 0;
  // The raw bytes that the token stands for in a text, e.g. " the": not always whole characters.
  // "" for a special token or if out of range. WordPiece: the piece without its prefix (the blanks
  // between words are no part of any token).
  virtual std::string_view BytesOf(int32_t id) const = 0;
  virtual size_t vocab_size() const = 0;

  // The tokens that start and end a text, where the files name them. An empty prompt starts from
  // bos_id(); Encode() adds the two only as the files say.
  virtual std::optional<int32_t> bos_id() const { return std::nullopt; }
  virtual std::optional<int32_t> eos_id() const { return std::nullopt; }
  // True if encoding puts a blank before a text, which decoding takes off again (Llama).
  virtual bool drops_first_blank() const { return false; }
};

// Picks the implementation by the files of a checkpoint directory: tokenizer.json (WordPiece or
// BPE); vocab.json with merges.txt, or encoder.json with vocab.bpe (GPT-2); vocab.txt (WordPiece);
// one tok*.bin (llama2.c). tokenizer_config.json is read beside them. NotFound names what was
// looked for; InvalidArgument and Unimplemented name the file, the key, what was found and
// expected.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& directory);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_TOKENIZER_H_
