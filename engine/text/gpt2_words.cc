#include "engine/text/gpt2_words.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>

namespace dimmer {
namespace {

struct Range {
  char32_t first, last;
};

// Letters and numbers that Unicode 15 added; ascending. Found by comparing utf8proc with the
// reference on every code point (tests/python/test_bpe_live.py).
constexpr Range kTooNew[] = {
    {0x1123f, 0x11240}, {0x11f02, 0x11f02}, {0x11f04, 0x11f10}, {0x11f12, 0x11f33},
    {0x11f50, 0x11f59}, {0x1342f, 0x1342f}, {0x13441, 0x13446}, {0x1b132, 0x1b132},
    {0x1b155, 0x1b155}, {0x1d2c0, 0x1d2d3}, {0x1df25, 0x1df2a}, {0x1e030, 0x1e06d},
    {0x1e4d0, 0x1e4eb}, {0x1e4f0, 0x1e4f9}, {0x2b739, 0x2b739}, {0x31350, 0x323af}};

bool IsTooNew(char32_t code_point) {
  if (code_point < kTooNew[0].first) return false;
  const Range* end = std::end(kTooNew);
  const Range* range = std::lower_bound(std::begin(kTooNew), end, code_point,
                                        [](const Range& r, char32_t c) { return r.last < c; });
  return range != end && range->first <= code_point;
}

constexpr std::array<Gpt2Class, 128> MakeAsciiClasses() {
  std::array<Gpt2Class, 128> classes = {};
  for (size_t c = 0; c < 128; ++c) {
    if (c == ' ' || (c >= '\t' && c <= '\r')) {
      classes[c] = Gpt2Class::kSpace;
    } else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      classes[c] = Gpt2Class::kLetter;
    } else if (c >= '0' && c <= '9') {
      classes[c] = Gpt2Class::kNumber;
    }
  }
  return classes;
}
constexpr std::array<Gpt2Class, 128> kAsciiClasses = MakeAsciiClasses();

struct Character {
  Gpt2Class kind;
  size_t bytes;
};

Character CharacterAt(std::string_view text, size_t offset) {
  const auto first = static_cast<unsigned char>(text[offset]);
  if (first < 0x80) return {kAsciiClasses[first], 1};
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + offset;
  utf8proc_int32_t code_point = 0;
  const utf8proc_ssize_t length =
      utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size() - offset), &code_point);
  if (length <= 0) return {Gpt2Class::kOther, 1};  // not UTF-8: does not happen
  return {Gpt2ClassOf(static_cast<char32_t>(code_point)), static_cast<size_t>(length)};
}

// The end of the characters of one class from `offset` on.
size_t EndOfRun(std::string_view text, size_t offset, Gpt2Class kind) {
  while (offset < text.size()) {
    const Character c = CharacterAt(text, offset);
    if (c.kind != kind) break;
    offset += c.bytes;
  }
  return offset;
}

// The length of 's, 't, 're, 've, 'm, 'll or 'd at the start, or 0.
size_t Contraction(std::string_view text) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  if (std::string_view("stmd").find(text[1]) != std::string_view::npos) return 2;
  const std::string_view two = text.substr(1, 2);
  return two == "re" || two == "ve" || two == "ll" ? 3 : 0;
}

// The length of `\s+(?!\S)|\s+` at the start: white space before a word leaves its last character
// to that word.
size_t SpaceWord(std::string_view text) {
  size_t end = 0, last = 0;
  while (end < text.size()) {
    const Character c = CharacterAt(text, end);
    if (c.kind != Gpt2Class::kSpace) break;
    last = end;
    end += c.bytes;
  }
  return end < text.size() && last > 0 ? last : end;
}

}  // namespace

Gpt2Class Gpt2ClassOf(char32_t code_point) {
  if (code_point < 0x80) return kAsciiClasses[code_point];
  if (code_point == 0x85) return Gpt2Class::kSpace;
  if (IsTooNew(code_point)) return Gpt2Class::kOther;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return Gpt2Class::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return Gpt2Class::kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return Gpt2Class::kSpace;
    default:
      return Gpt2Class::kOther;
  }
}

size_t FirstGpt2Word(std::string_view text) {
  if (const size_t contraction = Contraction(text); contraction > 0) return contraction;
  Character first = CharacterAt(text, 0);
  size_t begin = 0;
  if (text[0] == ' ' && text.size() > 1) {  // " ?" takes the blank if a word follows
    const Character second = CharacterAt(text, 1);
    if (second.kind != Gpt2Class::kSpace) {
      begin = 1;
      first = second;
    }
  }
  if (first.kind == Gpt2Class::kSpace) return SpaceWord(text);
  return EndOfRun(text, begin + first.bytes, first.kind);
}

}  // namespace dimmer
