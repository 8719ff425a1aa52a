// What the tokenizers share around the tokens of a text: checks, cuts and special tokens.
#ifndef DIMMER_ENGINE_TEXT_ENCODING_H_
#define DIMMER_ENGINE_TEXT_ENCODING_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace dimmer {

// InvalidArgument names the first bad byte and its offset in `which` ("text", "text_pair").
absl::Status CheckUtf8(std::string_view text, std::string_view which);

// The special tokens around a text and around a pair of them, in order.
struct TextTemplate {
  enum class What : uint8_t { kFirst, kSecond, kToken };
  struct Piece {
    What what = What::kFirst;
    int32_t id = 0;  // of a kToken
    int32_t type_id = 0;
  };
  std::vector<Piece> single = {{What::kFirst, 0, 0}};
  std::vector<Piece> pair = {{What::kFirst, 0, 0}, {What::kSecond, 0, 1}};
};

// Cuts the longer of the two, token by token from its end, until both fit: as "longest_first" of
// Hugging Face.
void TruncateLongestFirst(size_t room, std::vector<int32_t>& a, std::vector<int32_t>& b);

// One encoding of the tokens of a text and, if `is_pair`, of a second one. InvalidArgument: longer
// than options.max_tokens (names both lengths).
absl::StatusOr<Encoding> Assemble(std::vector<int32_t> a, std::vector<int32_t> b, bool is_pair,
                                  const TextTemplate& around, const EncodeOptions& options);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_ENCODING_H_
