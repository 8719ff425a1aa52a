// The tokenizer files of llama2.c (github.com/karpathy/llama2.c, tokenizer.py and run.c), such as
// tokenizer.bin and tok512.bin: a SentencePiece BPE as pieces with scores.
//
//   int32 max_token_length | for each token: float score | int32 length | bytes     (little endian)
//
// Token 0 is unknown, 1 starts a text, 2 ends one, 3 to 258 are the bytes 0x00 to 0xff.
#ifndef DIMMER_ENGINE_TEXT_LLAMA2C_TOKENIZER_H_
#define DIMMER_ENGINE_TEXT_LLAMA2C_TOKENIZER_H_

#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <string_view>

#include "engine/text/bpe_tokenizer.h"

namespace dimmer {

// The tokens as SentencePiece writes them ("▁the", "<s>") and all merges: of every two tokens whose
// characters together are a third one, by that one's score, best first. InvalidArgument names the
// file, the token, what was found and what was expected.
absl::StatusOr<BpeOptions> ParseLlama2cTokenizer(std::string_view bytes, const std::string& path);

// U+2581 in a text counts as a blank, as in SentencePiece; "<s>" in a text is just its characters.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadLlama2cTokenizer(const std::string& path);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_LLAMA2C_TOKENIZER_H_
