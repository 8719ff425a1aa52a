#include "engine/sampling/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace dimmer {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    if (stop.empty()) continue;
    Pattern pattern{.text = stop, .fallback = std::vector<size_t>(stop.size())};
    for (size_t i = 1, length = 0; i < stop.size(); ++i) {
      while (length > 0 && stop[i] != stop[length]) length = pattern.fallback[length - 1];
      if (stop[i] == stop[length]) ++length;
      pattern.fallback[i] = length;
    }
    patterns_.push_back(std::move(pattern));
  }
}

size_t StopMatcher::Step(Pattern& pattern, char byte) {
  size_t& matched = pattern.matched;
  while (matched > 0 && pattern.text[matched] != byte) matched = pattern.fallback[matched - 1];
  if (pattern.text[matched] == byte) ++matched;
  return matched;
}

std::string StopMatcher::Push(std::string_view part) {
  if (stopped_) return "";
  size_t held = 0;
  for (const char byte : part) {
    held_ += byte;
    held = 0;
    size_t complete = 0;
    for (Pattern& pattern : patterns_) {
      const size_t matched = Step(pattern, byte);
      held = std::max(held, matched);
      if (matched == pattern.text.size()) complete = std::max(complete, matched);
    }
    if (complete > 0) {
      stopped_ = true;
      held_.resize(held_.size() - complete);
      return std::exchange(held_, "");
    }
  }
  if (part.empty()) return "";
  std::string released = held_.substr(0, held_.size() - held);
  held_.erase(0, released.size());
  return released;
}

std::string StopMatcher::Finish() { return std::exchange(held_, ""); }

}  // namespace dimmer
