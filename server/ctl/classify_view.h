// What `classify` prints.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_CTL_CLASSIFY_VIEW_H_
#define DIMMER_SERVER_CTL_CLASSIFY_VIEW_H_

#include <string>
#include <vector>

#include "dimmer/v1/inference.pb.h"
#include "server/ctl/text.h"

namespace dimmer::ctl {

Line ClassifyHeader();
// One text's answer; further labels on lines of their own.
std::vector<Line> RenderResult(const std::string& text, const v1::Classification& result,
                               size_t columns);
// Of all answers together.
struct ClassifyTotal {
  uint64_t texts = 0;
  v1::Usage usage;  // counts and flags of all

  void Add(const v1::Usage& more, size_t results);
};
std::vector<Line> RenderTotal(const ClassifyTotal& total);

// {"text": ..., "labels": [...], "usage": {...}} on one line.
std::string ResultLine(const std::string& text, const v1::Classification& result);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_CLASSIFY_VIEW_H_
