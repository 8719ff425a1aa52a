// Tokens that are found in the raw text before anything else, e.g. "[MASK]" or "<|endoftext|>".
#ifndef DIMMER_ENGINE_TEXT_ADDED_TOKENS_H_
#define DIMMER_ENGINE_TEXT_ADDED_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dimmer {

// Immutable; safe for concurrent use.
class AddedTokens {
 public:
  struct Token {
    std::string text;
    int32_t id = 0;
  };
  struct Match {
    size_t begin = 0, end = 0;  // bytes in the text
    int32_t id = 0;
  };

  AddedTokens() = default;
  explicit AddedTokens(std::vector<Token> tokens);  // an empty text is never found

  bool empty() const { return starts_.empty(); }
  // The leftmost token at or after `from`, the longest if several start there.
  std::optional<Match> Find(std::string_view text, size_t from) const;

 private:
  std::array<std::vector<Token>, 256> tokens_;  // by first byte, longest first
  std::string starts_;                          // first bytes
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_ADDED_TOKENS_H_
