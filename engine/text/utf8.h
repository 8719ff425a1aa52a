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

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_UTF8_H_
