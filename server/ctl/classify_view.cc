#include "server/ctl/classify_view.h"

#include <fmt/format.h>

#include <algorithm>

#include "server/ctl/json.h"

namespace dimmer::ctl {
namespace {

constexpr size_t kLabel = 12;

std::string Row(const std::string& label, const std::string& score) {
  return fmt::format("{}  {:>6}", Left(Clip(label, kLabel), kLabel), score);
}

std::string Cost(const std::string& tau, const std::string& flops, const std::string& share) {
  return fmt::format("  {:>5}  {:>8}  {:>8}  ", tau, flops, share);
}

std::string Share(uint64_t flops, uint64_t dense) {
  return dense == 0 ? "-" : Percent(double(flops) / double(dense), 0);
}

}  // namespace

Line ClassifyHeader() {
  return {{Row("answer", "score") + Cost("tau", "FLOPs", "of dense") + "text", kDim}};
}

std::vector<Line> RenderResult(const std::string& text, const v1::Classification& result,
                               size_t columns) {
  const v1::Usage& usage = result.usage();
  std::vector<Line> lines;
  for (const v1::Label& label : result.labels()) {
    const std::string row = Row(Printable(label.name()), Percent(label.score(), 1));
    if (!lines.empty()) {
      lines.push_back({{row, kDim}});
      continue;
    }
    const std::string cost = Cost(fmt::format("{:.3f}", usage.tau()), Flops(double(usage.flops())),
                                  Share(usage.flops(), usage.dense_flops()));
    const size_t used = Width(row) + Width(cost);
    lines.push_back({{row, kBold},
                     {cost, kPlain},
                     {Clip(Printable(text), columns > used + 8 ? columns - used : 8), kPlain}});
  }
  return lines;
}

void ClassifyTotal::Add(const v1::Usage& usage, size_t results) {
  texts += results;
  flops += usage.flops();
  dense_flops += usage.dense_flops();
  compute_us += usage.compute_us();
  clamped = clamped || usage.budget_clamped();
  degraded = degraded || usage.degraded();
  truncated = truncated || usage.truncated();
}

std::vector<Line> RenderTotal(const ClassifyTotal& total) {
  std::vector<Line> lines = {
      {{fmt::format("{} text{}: {}, {} of dense, {} in the model", total.texts,
                    total.texts == 1 ? "" : "s", Flops(double(total.flops), "FLOPs"),
                    Share(total.flops, total.dense_flops),
                    Seconds(double(total.compute_us) * 1e-6)),
        kDim}}};
  if (total.clamped) {
    lines.push_back(
        {{"the budget was moved to the operator's bounds or the model's floor", kLight}});
  }
  if (total.degraded) lines.push_back({{"the server has turned the light down: load", kLight}});
  if (total.truncated) lines.push_back({{"a text was cut to the model's length", kLight}});
  return lines;
}

std::string ResultLine(const std::string& text, const v1::Classification& result) {
  Json object = {{"text", text}};
  object.update(ToJson(result));
  return DumpLine(object);
}

}  // namespace dimmer::ctl
