// The letters in which GPT-2's files write bytes (openai/gpt-2, src/encoder.py, bytes_to_unicode):
// printable Latin-1 characters stand for themselves, the other bytes for U+0100 and up, in order.
#ifndef DIMMER_ENGINE_TEXT_BYTE_ALPHABET_H_
#define DIMMER_ENGINE_TEXT_BYTE_ALPHABET_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dimmer {

// The letter of each byte, e.g. U+0120 for a blank. Pure; thread-safe.
const std::array<char32_t, 256>& ByteAlphabet();

// " the" to "Ġthe". Pure; thread-safe.
std::string BytesToLetters(std::string_view bytes);

// "Ġthe" to " the"; nothing if a character is no letter of the alphabet. `letters` is valid UTF-8.
std::optional<std::string> LettersToBytes(std::string_view letters);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_BYTE_ALPHABET_H_
