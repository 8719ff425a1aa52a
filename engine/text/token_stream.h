// Token ids to text, piece by piece: no piece ends inside a character.
#ifndef DIMMER_ENGINE_TEXT_TOKEN_STREAM_H_
#define DIMMER_ENGINE_TEXT_TOKEN_STREAM_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "engine/text/tokenizer.h"

namespace dimmer {

// The text of one sequence as it grows. What it returns is valid UTF-8; bytes that are part of no
// character become U+FFFD. Not thread-safe; one per sequence.
class TokenStream {
 public:
  // `tokenizer` must outlive this. `previous` is the token before the first one pushed, such as the
  // last of the prompt; none at the start of a text. After none, or the start token, the first
  // token loses its leading blank where the tokenizer says so (drops_first_blank()).
  explicit TokenStream(const Tokenizer& tokenizer, std::optional<int32_t> previous = std::nullopt);

  // The characters that the token completes; "" if there are none yet. A special token has no text.
  std::string Push(int32_t id);
  // True if bytes wait for the rest of their character: the ids pushed since the last character
  // ended are not wholly in the text yet.
  bool holds_back() const { return !pending_.empty(); }
  // The end of the text: U+FFFD if a character was left incomplete, else "".
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  bool at_start_;
  std::string pending_;  // the first bytes of a character, at most three
};

// The whole text of `ids` from the start of a text; special tokens have none.
std::string Decode(const Tokenizer& tokenizer, std::span<const int32_t> ids);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_TOKEN_STREAM_H_
