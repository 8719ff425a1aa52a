#include "server/ctl/generate_view.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "server/ctl/usage_view.h"

namespace dimmer::ctl {
namespace {

std::string Ended(const v1::GenerateResponse& last) {
  switch (last.finish_reason()) {
    case v1::LENGTH:
      return "max_tokens";
    case v1::STOP:
      return "a stop text";
    case v1::END_OF_TEXT:
      return "the end of the text";
    case v1::BUDGET:
      return "max_flops";
    default:
      return v1::FinishReason_Name(last.finish_reason());
  }
}

std::string Tokens(uint32_t count) {
  return fmt::format("{} token{}", count, count == 1 ? "" : "s");
}

}  // namespace

std::vector<Line> RenderGenerated(const v1::GenerateResponse& last, const GenerateTimes& times,
                                  bool sampled) {
  const v1::Usage& usage = last.usage();
  std::string text = fmt::format("{} after {}, ended by {}: {}, {} of dense, tau {:.3f}",
                                 Tokens(usage.output_tokens()), usage.prompt_tokens(), Ended(last),
                                 Flops(double(usage.flops()), "FLOPs"),
                                 ShareOfDense(usage.flops(), usage.dense_flops()), usage.tau());
  if (times.first > 0) {
    text += fmt::format("; first after {}, last after {}: {}/s", Seconds(times.first),
                        Seconds(times.last), Rate(usage.output_tokens() / times.last));
  }
  if (sampled) text += fmt::format("; seed {}", last.seed());
  std::vector<Line> lines = {{{std::move(text), kDim}}};
  for (Line& note : RenderNotes(usage)) lines.push_back(std::move(note));
  return lines;
}

}  // namespace dimmer::ctl
