// What `generate` prints after the text.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_CTL_GENERATE_VIEW_H_
#define DIMMER_SERVER_CTL_GENERATE_VIEW_H_

#include <vector>

#include "dimmer/v1/inference.pb.h"
#include "server/ctl/text.h"

namespace dimmer::ctl {

// As the terminal saw it, in seconds since the call.
struct GenerateTimes {
  double first = 0;  // until the first piece; 0: there was none
  double last = 0;   // until the last piece
};

// One line of how it ended and what it cost, and the notes. `last` is the stream's last message;
// `sampled`: the seed matters.
std::vector<Line> RenderGenerated(const v1::GenerateResponse& last, const GenerateTimes& times,
                                  bool sampled);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_GENERATE_VIEW_H_
