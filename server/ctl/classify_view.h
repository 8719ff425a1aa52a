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
  uint64_t texts = 0, flops = 0, dense_flops = 0, compute_us = 0;
  bool clamped = false, degraded = false, truncated = false;

  void Add(const v1::Usage& usage, size_t results);
};
std::vector<Line> RenderTotal(const ClassifyTotal& total);

// {"text": ..., "labels": [...], "usage": {...}} on one line.
std::string ResultLine(const std::string& text, const v1::Classification& result);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_CLASSIFY_VIEW_H_
