#include "server/ctl/top_view.h"

#include <absl/time/time.h>
#include <fmt/format.h>
#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace dimmer::ctl {
namespace {

constexpr size_t kHistory = 60;
constexpr size_t kCurve = 24;  // columns of a small curve
constexpr size_t kName = 13;
constexpr size_t kValue = 9;
constexpr size_t kLeastBar = 10, kMostBar = 64;

void Append(std::vector<double>& curve, double value) {
  curve.push_back(value);
  if (curve.size() > kHistory) curve.erase(curve.begin());
}

std::string Clock(const google::protobuf::Timestamp& time) {
  const absl::Time at = absl::FromUnixSeconds(time.seconds());
  return absl::FormatTime("%H:%M:%S UTC", at, absl::UTCTimeZone());
}

// "2h14m", "9m30s": two units, to the second.
std::string Ago(double seconds) {
  const absl::Duration whole = absl::Seconds(std::floor(std::max(0.0, seconds)));
  const absl::Duration unit = whole >= absl::Hours(1) ? absl::Minutes(1) : absl::Seconds(1);
  return absl::FormatDuration(absl::Trunc(whole, unit));
}

// From embers to full light: the more of its experts a layer runs, the brighter its bar.
Ink Glow(double share) {
  constexpr std::array<uint8_t, 6> kShades = {94, 130, 136, 172, 214, 221};
  const double bounded = std::clamp(share, 0.0, 1.0);
  return {.color = kShades[static_cast<size_t>(std::lround(std::sqrt(bounded) * 5))]};
}

double Top(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

// "  requests       182.4 /s  <curve>  <notes>": what does not fit is left out from the right.
struct Row {
  std::string name, value, unit;
  Ink ink = kBold;
  const std::vector<double>* curve = nullptr;
  double top = 0;
  std::string notes;
};

Line Render(const Row& row, const TopShape& shape) {
  Line line = {{"  " + Left(row.name, kName), kDim},
               {Right(row.value, kValue), row.ink},
               {Left(row.unit, 4), kPlain}};
  if (row.curve != nullptr && shape.columns >= Width(line) + 2 + kCurve) {
    const std::string curve = Sparkline(*row.curve, row.top, kCurve, shape.unicode);
    line.push_back({"  " + Left(curve, kCurve), {.color = 136}});
  }
  if (!row.notes.empty() && Width(line) + 2 + Width(row.notes) <= shape.columns) {
    line.push_back({"  " + row.notes, kPlain});
  }
  return Clip(line, shape.columns);
}

std::string Maybe(const std::optional<double>& value, std::string (*show)(double)) {
  return value ? show(*value) : "-";
}

std::string Tau(double value) { return fmt::format("{:.3f}", value); }
std::string Share(double value) { return fmt::format("{:.1f}", 100 * value); }

std::string DefaultTau(const v1::TauSettings& settings, const google::protobuf::Timestamp& now) {
  std::string text = fmt::format("default {} in {}", Number(settings.default_tau()),
                                 Interval(settings.min_tau(), settings.max_tau()));
  if (!settings.layers().empty()) {
    text += fmt::format(", {} layer{} apart", settings.layers_size(),
                        settings.layers_size() == 1 ? "" : "s");
  }
  if (settings.has_expires()) {
    const double left = double(settings.expires().seconds() - now.seconds());
    text += ", for " + Ago(left) + " more";
  }
  return text;
}

std::vector<Line> LayerRows(const ModelWindow& window, const TopShape& shape) {
  std::vector<Line> lines;
  if (window.modules.empty()) return lines;
  lines.push_back({});
  lines.push_back(Clip({{"  experts run per token, by layer", kDim}}, shape.columns));
  for (const ModelWindow::Module& module : window.modules) {
    const double share =
        module.run && module.experts > 0 ? *module.run / double(module.experts) : 0;
    const std::string run = module.run ? fmt::format("{:.1f}", *module.run) : "-";
    Line line = {
        {fmt::format("  {:>3} {} ", module.layer, Left(Printable(module.module), 3)), kDim},
        {Right(run, 7), kBold},
        {fmt::format(" of {:<4}", module.experts), kPlain}};
    const size_t used = Width(line) + 8;
    const size_t bar = shape.columns > used ? std::min(kMostBar, shape.columns - used) : 0;
    if (bar >= kLeastBar) {
      line.push_back({Right(module.run ? Percent(share, 0) : "", 6) + "  ", kPlain});
      line.push_back({Bar(share, bar, shape.unicode), Glow(share)});
      std::string track;  // to the end, where all experts run
      for (size_t i = Width(line.back().text); i < bar; ++i) track += shape.unicode ? "·" : ".";
      line.push_back({track, kDim});
    }
    lines.push_back(Clip(line, shape.columns));
  }
  return lines;
}

Line Title(const v1::ModelStats& model, const TopShape& shape) {
  Line left = {{shape.unicode ? "● " : "* ", model.ready() ? kGood : kBad},
               {Printable(model.model()), kLight},
               {"  version " + Printable(model.version()), kDim}};
  Line right;
  if (!model.ready()) {
    right = {{"not ready: see dimmerctl models", kBad}};
  } else if (!model.converted()) {
    right = {{"not converted: always dense", kDim}};
  }
  return Spread(std::move(left), right, shape.columns);
}

std::vector<Line> ModelRows(const ModelWindow& window, const TopHistory::Curves& curves,
                            const google::protobuf::Timestamp& time, const TopShape& shape) {
  const v1::ModelStats& now = window.now;
  std::vector<Line> lines = {Title(now, shape)};
  if (!now.ready()) return lines;
  const auto add = [&](const Row& row) { lines.push_back(Render(row, shape)); };
  add({.name = "requests",
       .value = Rate(window.requests),
       .unit = " /s",
       .curve = &curves.requests,
       .top = Top(curves.requests),
       .notes = fmt::format("{} texts/s, {} tokens/s", Rate(window.texts), Rate(window.tokens))});
  add({.name = "errors",
       .value = Rate(window.errors),
       .unit = " /s",
       .ink = window.errors > 0 ? kBad : kDim});
  add({.name = "latency",
       .value = Maybe(window.p50, Seconds),
       .unit = " p50",
       .curve = &curves.p50,
       .top = Top(curves.p50),
       .notes =
           fmt::format("{} p95, {} p99", Maybe(window.p95, Seconds), Maybe(window.p99, Seconds))});
  add({.name = "queue",
       .value = fmt::format("{}", now.queued()),
       .unit = "",
       .ink = now.queued() > 0 ? kBold : kDim,
       .notes = fmt::format("texts waiting, {} in the model", now.running())});
  if (now.converted()) {
    add({.name = "tau",
         .value = Maybe(window.tau, Tau),
         .unit = "",
         .ink = kLight,
         .curve = &curves.tau,
         .top = Top(curves.tau),
         .notes = DefaultTau(now.settings(), time)});
    add({.name = "FLOPs saved",
         .value = Maybe(window.saved, Share),
         .unit = " %",
         .ink = kLight,
         .curve = &curves.saved,
         .top = 1,
         .notes = fmt::format("{} run, {} dense", Flops(window.flops, "FLOP/s"),
                              Flops(window.dense_flops, "FLOP/s"))});
  }
  const auto layers = LayerRows(window, shape);
  lines.insert(lines.end(), layers.begin(), layers.end());
  return lines;
}

}  // namespace

void TopHistory::Add(const std::vector<ModelWindow>& windows) {
  for (const ModelWindow& window : windows) {
    Curves& curves = models[window.now.model()];
    Append(curves.requests, window.requests);
    Append(curves.tau, window.tau.value_or(0));
    Append(curves.saved, window.saved.value_or(0));
    Append(curves.p50, window.p50.value_or(0));
  }
}

std::vector<Line> RenderTop(const TopFrame& frame, const TopHistory& history,
                            const TopShape& shape) {
  std::vector<Line> lines;
  Line left = {{"dimmerctl top", kBold},
               {"  " + Printable(frame.address), kPlain},
               {"  up " + Ago(frame.now.uptime_seconds()), kDim}};
  const std::string keys = frame.keys ? "q quits  " : "";
  lines.push_back(Spread(std::move(left), {{keys + Clock(frame.now.time()), kDim}}, shape.columns));
  if (frame.windows.empty()) {
    lines.push_back({});
    lines.push_back(
        Clip({{frame.now.models().empty() ? "no models" : "counting ...", kDim}}, shape.columns));
  }
  for (const ModelWindow& window : frame.windows) {
    const auto found = history.models.find(window.now.model());
    lines.push_back({});
    const auto rows =
        ModelRows(window, found == history.models.end() ? TopHistory::Curves() : found->second,
                  frame.now.time(), shape);
    lines.insert(lines.end(), rows.begin(), rows.end());
  }
  if (shape.rows > 0 && lines.size() > shape.rows) {
    const size_t hidden = lines.size() - shape.rows + 1;
    lines.resize(shape.rows - 1);
    lines.push_back(Clip(
        {{fmt::format("{} more lines: name one model, or make the window higher", hidden), kDim}},
        shape.columns));
  }
  return lines;
}

}  // namespace dimmer::ctl
