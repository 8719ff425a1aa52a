// Ends a text before the first stop string, as the text comes in parts.
//
// Thread safety: none; one per sequence.
#ifndef DIMMER_ENGINE_SAMPLING_STOP_MATCHER_H_
#define DIMMER_ENGINE_SAMPLING_STOP_MATCHER_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace dimmer {

// Releases text as soon as it can be no part of a stop string. The stop string that is complete
// first ends the text; of those that end at the same byte, the longest. So the answer is the same
// however the text is cut into parts, and a stop string may span parts. Parts and stop strings that
// are whole UTF-8 characters give releases that are.
class StopMatcher {
 public:
  // Empty strings never match.
  explicit StopMatcher(const std::vector<std::string>& stops);

  // What is certain to be text. Nothing once stopped().
  std::string Push(std::string_view part);
  // The end of the text: what was held back. Nothing if stopped().
  std::string Finish();

  bool stopped() const { return stopped_; }
  // Bytes of the beginning of a stop string at the end of the text.
  size_t held_back() const { return held_.size(); }

 private:
  // Knuth, Morris and Pratt's automaton of one stop string.
  struct Pattern {
    std::string text;
    std::vector<size_t> fallback;  // [i]: longest proper prefix of text that ends text[0..i]
    size_t matched = 0;            // longest prefix of text that ends what came, bytes
  };
  static size_t Step(Pattern& pattern, char byte);

  std::vector<Pattern> patterns_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_SAMPLING_STOP_MATCHER_H_
