#include "engine/text/token_stream.h"

#include <string_view>
#include <utility>

#include "engine/text/utf8.h"

namespace dimmer {

TokenStream::TokenStream(const Tokenizer& tokenizer, std::optional<int32_t> previous)
    : tokenizer_(&tokenizer), at_start_(!previous || previous == tokenizer.bos_id()) {}

std::string TokenStream::Push(int32_t id) {
  std::string_view bytes = tokenizer_->BytesOf(id);
  if (at_start_ && tokenizer_->drops_first_blank() && bytes.starts_with(' ')) {
    bytes.remove_prefix(1);
  }
  at_start_ = id == tokenizer_->bos_id();
  pending_ += bytes;
  std::string text;
  DrainUtf8(pending_, text);
  return text;
}

std::string TokenStream::Finish() {
  const bool whole = std::exchange(pending_, {}).empty();
  return whole ? "" : "\xef\xbf\xbd";  // U+FFFD
}

std::string Decode(const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  TokenStream stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) text += stream.Push(id);
  return text + stream.Finish();
}

}  // namespace dimmer
