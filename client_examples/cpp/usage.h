// How the examples print what a call used.
#ifndef DIMMER_EXAMPLE_USAGE_H_
#define DIMMER_EXAMPLE_USAGE_H_

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "dimmer/v1/inference.pb.h"

namespace dimmer_example {

// One line: the share of the dense model's FLOPs, and how it came to that.
inline std::string Describe(const dimmer::v1::Usage& usage) {
  const double dense = double(std::max<uint64_t>(usage.dense_flops(), 1));
  std::string tokens = std::to_string(usage.prompt_tokens());
  if (usage.output_tokens() > 0) tokens += fmt::format(" + {}", usage.output_tokens());
  return fmt::format("{:.1f} of {:.1f} MFLOPs, {:.1f}%, tau {:.3f}, {} tokens{}{}{}",
                     double(usage.flops()) / 1e6, double(usage.dense_flops()) / 1e6,
                     100 * double(usage.flops()) / dense, usage.tau(), tokens,
                     usage.budget_clamped() ? ", budget_clamped" : "",
                     usage.degraded() ? ", degraded" : "", usage.truncated() ? ", truncated" : "");
}

}  // namespace dimmer_example

#endif  // DIMMER_EXAMPLE_USAGE_H_
