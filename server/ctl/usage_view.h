// What the commands that run a model say of its cost.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_CTL_USAGE_VIEW_H_
#define DIMMER_SERVER_CTL_USAGE_VIEW_H_

#include <cstdint>
#include <string>
#include <vector>

#include "dimmer/v1/inference.pb.h"
#include "server/ctl/text.h"

namespace dimmer::ctl {

// "47%", "-" of nothing.
std::string ShareOfDense(uint64_t flops, uint64_t dense_flops);

// A line for each thing that was not as asked for: clamped, degraded, truncated.
std::vector<Line> RenderNotes(const v1::Usage& usage);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_USAGE_VIEW_H_
