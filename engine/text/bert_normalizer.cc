#include "engine/text/bert_normalizer.h"

#include <utf8proc.h>

#include <algorithm>

#include "engine/text/unicode_category.h"
#include "engine/text/utf8.h"

namespace dimmer {
namespace {

// The Unicode property White_Space, which is wider than the category Zs.
bool IsWhiteSpace(char32_t c) {
  return c == ' ' || (c >= 0x09 && c <= 0x0d) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

bool IsAsciiPunctuation(char32_t c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}

bool IsControl(char32_t c) {
  return c != '\t' && c != '\n' && c != '\r' && CategoryOf(c) == UnicodeCategory::kControl;
}

// The CJK blocks of the original BERT: Hangul, Hiragana and Katakana are written with or without
// blanks like any other script and are not among them.
bool IsChinese(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

void AppendLower(char32_t c, std::u32string& out) {
  if (c == 0x130) {  // the one letter whose lower case is two code points
    out.append(U"i\u0307");
    return;
  }
  out.push_back(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

int CombiningClass(char32_t c) {
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class;
}

// Canonical ordering (Unicode, section 3.11): marks behind a base in order of their class.
void OrderMarks(std::u32string& text) {
  for (size_t i = 0; i < text.size();) {
    if (text[i] < 0x300 || CombiningClass(text[i]) == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < text.size() && CombiningClass(text[end]) != 0) ++end;
    std::stable_sort(text.begin() + static_cast<ptrdiff_t>(i),
                     text.begin() + static_cast<ptrdiff_t>(end),
                     [](char32_t a, char32_t b) { return CombiningClass(a) < CombiningClass(b); });
    i = end;
  }
}

std::u32string Decomposed(const std::u32string& text) {
  std::u32string out;
  out.reserve(text.size() + text.size() / 4);
  utf8proc_int32_t buffer[32];  // the longest canonical decomposition has 4 code points
  for (const char32_t c : text) {
    if (c < 0x80 || IsTooNew(c)) {
      out.push_back(c);
      continue;
    }
    const utf8proc_ssize_t length =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), buffer, 32,
                                static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE), nullptr);
    for (utf8proc_ssize_t i = 0; i < length; ++i) out.push_back(static_cast<char32_t>(buffer[i]));
  }
  OrderMarks(out);
  return out;
}

}  // namespace

CharClass ClassOf(char32_t c) {
  if (c < 0x80) {
    if (IsWhiteSpace(c)) return CharClass::kSpace;
    return IsAsciiPunctuation(c) ? CharClass::kPunctuation : CharClass::kWord;
  }
  if (IsWhiteSpace(c)) return CharClass::kSpace;
  return CategoryOf(c) == UnicodeCategory::kPunctuation ? CharClass::kPunctuation
                                                        : CharClass::kWord;
}

void NormalizeBert(std::string_view text, const BertNormalizerOptions& options,
                   std::u32string& out) {
  std::u32string raw;
  raw.reserve(text.size());
  AppendCodePoints(text, raw);

  std::u32string clean;
  clean.reserve(raw.size() + 16);
  for (const char32_t c : raw) {
    if (options.clean_text && (c == 0 || c == 0xfffd || IsControl(c))) continue;
    const bool chinese = options.handle_chinese_chars && IsChinese(c);
    if (chinese) clean.push_back(' ');
    clean.push_back(options.clean_text && IsWhiteSpace(c) ? U' ' : c);
    if (chinese) clean.push_back(' ');
  }
  if (options.strip_accents) {
    clean = Decomposed(clean);
    std::erase_if(clean, [](char32_t c) {
      return c >= 0x300 && CategoryOf(c) == UnicodeCategory::kNonspacingMark;
    });
  }
  if (!options.lowercase) {
    out += clean;
    return;
  }
  for (const char32_t c : clean) AppendLower(c, out);
}

}  // namespace dimmer
