// BERT's text clean-up and word split, as the fast tokenizers of Hugging Face do them
// (BertNormalizer, then BertPreTokenizer).
#ifndef DIMMER_ENGINE_TEXT_BERT_NORMALIZER_H_
#define DIMMER_ENGINE_TEXT_BERT_NORMALIZER_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace dimmer {

struct BertNormalizerOptions {
  bool clean_text = true;            // drop control characters, make every white space a blank
  bool handle_chinese_chars = true;  // CJK ideographs are words of their own
  bool lowercase = true;
  bool strip_accents = true;  // NFD, then without non-spacing marks
};

enum class CharClass : uint8_t { kWord, kSpace, kPunctuation };

// How the word split sees a code point of normalized text.
CharClass ClassOf(char32_t code_point);

// Normalizes valid UTF-8 and appends the result to `out`. Pure; thread-safe; linear in text.size().
void NormalizeBert(std::string_view text, const BertNormalizerOptions& options,
                   std::u32string& out);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_BERT_NORMALIZER_H_
