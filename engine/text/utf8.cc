#include "engine/text/utf8.h"

#include <utf8proc.h>

#include <cstring>

namespace dimmer {
namespace {

// Decodes one code point; its length, or 0 if it is invalid.
size_t Decode(std::string_view text, size_t offset, utf8proc_int32_t& code_point) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + offset;
  const utf8proc_ssize_t length =
      utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size() - offset), &code_point);
  return length > 0 && code_point >= 0 ? static_cast<size_t>(length) : 0;
}

// The end of the ASCII bytes that start at `offset`, eight at a time.
size_t SkipAscii(std::string_view text, size_t offset) {
  uint64_t word;
  while (offset + sizeof(word) <= text.size()) {
    std::memcpy(&word, text.data() + offset, sizeof(word));
    if ((word & 0x8080808080808080u) != 0) break;
    offset += sizeof(word);
  }
  while (offset < text.size() && static_cast<unsigned char>(text[offset]) < 0x80) ++offset;
  return offset;
}

}  // namespace

std::optional<size_t> FindInvalidUtf8(std::string_view text) {
  for (size_t i = SkipAscii(text, 0); i < text.size(); i = SkipAscii(text, i)) {
    utf8proc_int32_t code_point;
    const size_t length = Decode(text, i, code_point);
    if (length == 0) return i;
    i += length;
  }
  return std::nullopt;
}

void AppendCodePoints(std::string_view text, std::u32string& out) {
  for (size_t i = 0; i < text.size();) {
    utf8proc_int32_t code_point;
    const size_t length = Decode(text, i, code_point);
    if (length == 0) return;
    out.push_back(static_cast<char32_t>(code_point));
    i += length;
  }
}

void AppendUtf8(char32_t code_point, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t length =
      utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

}  // namespace dimmer
