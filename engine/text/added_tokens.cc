#include "engine/text/added_tokens.h"

#include <algorithm>
#include <utility>

namespace dimmer {

AddedTokens::AddedTokens(std::vector<Token> tokens) {
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const Token& a, const Token& b) { return a.text.size() > b.text.size(); });
  for (Token& token : tokens) {
    if (token.text.empty()) continue;
    std::vector<Token>& same_start = tokens_[static_cast<unsigned char>(token.text[0])];
    if (same_start.empty()) starts_ += token.text[0];
    same_start.push_back(std::move(token));
  }
}

std::optional<AddedTokens::Match> AddedTokens::Find(std::string_view text, size_t from) const {
  if (starts_.empty()) return std::nullopt;
  for (size_t at = text.find_first_of(starts_, from); at != std::string_view::npos;
       at = text.find_first_of(starts_, at + 1)) {
    for (const Token& token : tokens_[static_cast<unsigned char>(text[at])]) {
      if (text.substr(at).starts_with(token.text)) {
        return Match{at, at + token.text.size(), token.id};
      }
    }
  }
  return std::nullopt;
}

}  // namespace dimmer
