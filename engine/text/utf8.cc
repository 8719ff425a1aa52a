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

// What may follow a first byte: the length of the character, 0 if it starts none, and the range of
// its second byte (The Unicode Standard, table 3-7).
struct Lead {
  size_t length;
  unsigned char low, high;
};

Lead LeadOf(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte >= 0xc2 && byte <= 0xdf) return {2, 0x80, 0xbf};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};
  if (byte >= 0xe1 && byte <= 0xef) return {3, 0x80, 0xbf};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte >= 0xf1 && byte <= 0xf3) return {4, 0x80, 0xbf};
  if (byte == 0xf4) return {4, 0x80, 0x8f};
  return {0, 0, 0};
}

// How many of the first bytes of `rest` agree with a character that starts like its first one.
size_t MatchingBytes(std::string_view rest, const Lead& lead) {
  size_t n = 1;
  for (; n < lead.length && n < rest.size(); ++n) {
    const auto byte = static_cast<unsigned char>(rest[n]);
    if (byte < (n == 1 ? lead.low : 0x80) || byte > (n == 1 ? lead.high : 0xbf)) break;
  }
  return n;
}

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

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

void DrainUtf8(std::string& bytes, std::string& text) {
  size_t at = 0;
  while (at < bytes.size()) {
    const std::string_view rest = std::string_view(bytes).substr(at);
    const Lead lead = LeadOf(static_cast<unsigned char>(rest[0]));
    const size_t n = MatchingBytes(rest, lead);
    if (n < lead.length && n == rest.size()) break;  // more may come
    text += n == lead.length ? rest.substr(0, n) : kReplacement;
    at += n;
  }
  bytes.erase(0, at);
}

}  // namespace dimmer
