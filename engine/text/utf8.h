// UTF-8 in and out, on top of utf8proc.
#ifndef DIMMER_ENGINE_TEXT_UTF8_H_
#define DIMMER_ENGINE_TEXT_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dimmer {

// The byte offset of the first byte that is not valid UTF-8 (overlong forms, surrogates and values
// above U+10FFFF are not); nothing if all of it is valid.
std::optional<size_t> FindInvalidUtf8(std::string_view text);

// Decodes valid UTF-8 and appends the code points to `out`.
void AppendCodePoints(std::string_view text, std::u32string& out);

// Appends one code point as UTF-8.
void AppendUtf8(char32_t code_point, std::string& out);

// Moves from the front of `bytes` to the end of `text` what later bytes cannot change: characters
// as they are, and one U+FFFD for every maximal part of a character that is none (The Unicode
// Standard, section 3.9, "U+FFFD Substitution of Maximal Subparts"). At most three bytes, which may
// still become a character, stay.
void DrainUtf8(std::string& bytes, std::string& text);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_UTF8_H_
