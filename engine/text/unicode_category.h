// The few classes of code points that BERT's text clean-up tells apart.
//
// utf8proc knows a newer Unicode than the fast tokenizers of Hugging Face, whose categories are
// those of version 8 in every release. What was added or reclassified since is listed here, so that
// a model sees the tokens that it was trained with.
#ifndef DIMMER_ENGINE_TEXT_UNICODE_CATEGORY_H_
#define DIMMER_ENGINE_TEXT_UNICODE_CATEGORY_H_

#include <cstdint>

namespace dimmer {

enum class UnicodeCategory : uint8_t {
  kOther,
  kControl,         // Cc, Cf, Co
  kNonspacingMark,  // Mn
  kPunctuation,     // P*, without the ASCII symbols that BERT adds to it
};

// Pure; thread-safe; for any value.
UnicodeCategory CategoryOf(char32_t code_point);

// True if it came after the reference's Unicode: it has no decomposition there either.
bool IsTooNew(char32_t code_point);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_UNICODE_CATEGORY_H_
