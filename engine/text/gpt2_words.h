// GPT-2's split of a text into words, inside which alone tokens merge. Its pattern (openai/gpt-2,
// src/encoder.py):
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
#ifndef DIMMER_ENGINE_TEXT_GPT2_WORDS_H_
#define DIMMER_ENGINE_TEXT_GPT2_WORDS_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace dimmer {

enum class Gpt2Class : uint8_t { kOther, kLetter, kNumber, kSpace };

// \p{L}, \p{N} and \s of Unicode 14, which the fast tokenizers of Hugging Face know: what came
// later is kOther there. Pure; thread-safe; for any value.
Gpt2Class Gpt2ClassOf(char32_t code_point);

// The bytes of the first word of `text`, which is valid UTF-8 and not empty. Pure; thread-safe;
// linear over all words of a text.
size_t FirstGpt2Word(std::string_view text);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_GPT2_WORDS_H_
