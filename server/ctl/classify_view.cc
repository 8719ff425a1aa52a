#include "server/ctl/classify_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/ctl/json.h"
#include "server/ctl/usage_view.h"

namespace dimmer::ctl {
namespace {

constexpr size_t kLabel = 12;

std::string Row(const std::string& label, const std::string& score) {
  return fmt::format("{}  {:>6}", Left(Clip(label, kLabel), kLabel), score);
}

std::string Cost(const std::string& tau, const std::string& flops, const std::string& share) {
  return fmt::format("  {:>5}  {:>8}  {:>8}  ", tau, flops, share);
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
                                  ShareOfDense(usage.flops(), usage.dense_flops()));
    const size_t used = Width(row) + Width(cost);
    lines.push_back({{row, kBold},
                     {cost, kPlain},
                     {Clip(Printable(text), columns > used + 8 ? columns - used : 8), kPlain}});
  }
  return lines;
}

void ClassifyTotal::Add(const v1::Usage& more, size_t results) {
  texts += results;
  usage.set_flops(usage.flops() + more.flops());
  usage.set_dense_flops(usage.dense_flops() + more.dense_flops());
  usage.set_compute_us(usage.compute_us() + more.compute_us());
  usage.set_budget_clamped(usage.budget_clamped() || more.budget_clamped());
  usage.set_degraded(usage.degraded() || more.degraded());
  usage.set_truncated(usage.truncated() || more.truncated());
}

std::vector<Line> RenderTotal(const ClassifyTotal& total) {
  const v1::Usage& usage = total.usage;
  std::vector<Line> lines = {
      {{fmt::format("{} text{}: {}, {} of dense, {} in the model", total.texts,
                    total.texts == 1 ? "" : "s", Flops(double(usage.flops()), "FLOPs"),
                    ShareOfDense(usage.flops(), usage.dense_flops()),
                    Seconds(double(usage.compute_us()) * 1e-6)),
        kDim}}};
  for (Line& note : RenderNotes(usage)) lines.push_back(std::move(note));
  return lines;
}

std::string ResultLine(const std::string& text, const v1::Classification& result) {
  Json object = {{"text", text}};
  object.update(ToJson(result));
  return DumpLine(object);
}

}  // namespace dimmer::ctl
