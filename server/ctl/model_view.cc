#include "server/ctl/model_view.h"

#include <absl/time/time.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/struct.pb.h>

#include <algorithm>

namespace dimmer::ctl {
namespace {

constexpr size_t kKey = 14;
constexpr size_t kBar = 24;

void Add(std::vector<Line>& lines, const std::string& key, std::string text, Ink ink = kPlain) {
  lines.push_back({{"  " + Left(key, kKey), kDim}, {std::move(text), ink}});
}

// Words joined with ", " on as many lines as `columns` need.
void AddWords(std::vector<Line>& lines, std::string key, const std::vector<std::string>& words,
              size_t columns) {
  std::string row;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string word = words[i] + (i + 1 < words.size() ? "," : "");
    if (!row.empty() && 2 + kKey + Width(row) + 1 + Width(word) > columns) {
      Add(lines, std::exchange(key, ""), std::exchange(row, ""));
    }
    row += (row.empty() ? "" : " ") + word;
  }
  Add(lines, key, row);
}

std::string Experts(const v1::Model& model) {
  if (!model.converted()) return "none: not converted, always runs dense";
  const auto& modules = model.moe_modules();
  const bool alike = std::all_of(modules.begin(), modules.end(), [&](const v1::MoeModule& module) {
    return module.experts() == modules[0].experts() && module.module() == modules[0].module();
  });
  if (alike && !modules.empty()) {
    return fmt::format("{} in the {} of each of {} layers; {} per expert and token, {} per router",
                       modules[0].experts(), Printable(modules[0].module()), modules.size(),
                       Flops(double(modules[0].expert_flops()), "FLOPs"),
                       Flops(double(modules[0].router_flops()), "FLOPs"));
  }
  std::vector<std::string> parts;
  for (const v1::MoeModule& module : modules) {
    parts.push_back(
        fmt::format("{} in {} {}", module.experts(), module.layer(), Printable(module.module())));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string Gate(const v1::Gate& gate) {
  if (gate.kind() == "top_k") return fmt::format("top_k, {} experts per token", gate.top_k());
  return fmt::format("{}, default tau {} in the package", Printable(gate.kind()),
                     Number(gate.default_tau()));
}

void AddSettings(std::vector<Line>& lines, const v1::TauSettings& settings) {
  lines.push_back(
      {{"  " + Left("tau", kKey), kDim},
       {"default " + Number(settings.default_tau()), kLight},
       {fmt::format(" in {}, revision {}, {}", Interval(settings.min_tau(), settings.max_tau()),
                    settings.revision(), Expiry(settings)),
        kPlain}});
  for (const v1::LayerTau& layer : settings.layers()) {
    Add(lines, "",
        fmt::format("layer {} {}: {}", layer.layer(), Printable(layer.module()),
                    Number(layer.tau())));
  }
}

void AddCalibration(std::vector<Line>& lines, const v1::Model& model, size_t columns,
                    bool unicode) {
  const v1::Calibration& table = model.calibration();
  if (table.points().empty()) return;
  const std::string metric = Printable(table.metric());
  lines.push_back({});
  lines.push_back(
      {{"  calibration", kBold},
       {fmt::format("  {} on {} rows, {} tokens", metric, table.rows(), table.tokens()), kDim}});
  lines.push_back({{fmt::format("  {:>7}  {:>6}  {:<22}  FLOPs of dense", "tau", "FLOPs",
                                metric + ", 95% interval"),
                    kDim}});
  // The row up to which the default in force reaches.
  int in_force = 0;
  for (int i = 0; i < table.points_size(); ++i) {
    if (table.points(i).tau() <= model.settings().default_tau()) in_force = i;
  }
  for (int i = 0; i < table.points_size(); ++i) {
    const v1::CalibrationPoint& point = table.points(i);
    const Ink ink = i == in_force ? kLight : kPlain;
    const std::string quality = fmt::format("{} [{:.1f}, {:.1f}]", Percent(point.quality(), 1),
                                            100 * point.quality_low(), 100 * point.quality_high());
    Line line = {{fmt::format("  {:>7}  {:>6}  {:<22}  ", Number(point.tau()),
                              Percent(point.flop_fraction(), 1), quality),
                  ink}};
    if (columns >= Width(line) + kBar) {
      const std::string bar = Bar(point.flop_fraction(), kBar, unicode);
      line.push_back({Left(bar, kBar), {.color = uint8_t(i == in_force ? 214 : 136)}});
      const bool exact = point.tau() == model.settings().default_tau();
      const std::string note = exact ? "  the default" : "  the default is past this";
      if (i == in_force && columns >= Width(line) + Width(note)) line.push_back({note, kLight});
    }
    lines.push_back(std::move(line));
  }
}

std::string Short(const google::protobuf::Value& value) {
  switch (value.kind_case()) {
    case google::protobuf::Value::kStringValue:
      return Printable(value.string_value());
    case google::protobuf::Value::kNumberValue:
      return fmt::format("{}", value.number_value());
    case google::protobuf::Value::kBoolValue:
      return value.bool_value() ? "true" : "false";
    default:
      return "";
  }
}

// In short: single values, and one level of what they stand in. Lists are left to --json.
void AddProvenance(std::vector<Line>& lines, const google::protobuf::Struct& provenance,
                   size_t columns) {
  std::vector<std::pair<std::string, std::string>> rows;
  for (const auto& [key, value] : provenance.fields()) {
    if (!Short(value).empty()) rows.emplace_back(Printable(key), Short(value));
    if (!value.has_struct_value()) continue;
    std::vector<std::string> parts;
    for (const auto& [inner, part] : value.struct_value().fields()) {
      if (!Short(part).empty()) parts.push_back(Printable(inner) + " " + Short(part));
    }
    std::sort(parts.begin(), parts.end());
    if (!parts.empty()) {
      rows.emplace_back(Printable(key), fmt::format("{}", fmt::join(parts, ", ")));
    }
  }
  if (rows.empty()) return;
  std::sort(rows.begin(), rows.end());
  lines.push_back({});
  lines.push_back({{"  provenance", kBold}, {"  (in full: --json)", kDim}});
  for (auto& [key, text] : rows) {
    lines.push_back(
        Clip({{"  " + Left(key, kKey), kDim}, {" " + std::move(text), kPlain}}, columns));
  }
}

}  // namespace

Calibration ToCalibration(const v1::Calibration& calibration) {
  Calibration table{.metric = calibration.metric(),
                    .rows = calibration.rows(),
                    .tokens = calibration.tokens(),
                    .points = {}};
  for (const v1::CalibrationPoint& point : calibration.points()) {
    table.points.push_back({.tau = point.tau(),
                            .flop_fraction = point.flop_fraction(),
                            .quality = point.quality(),
                            .quality_low = point.quality_low(),
                            .quality_high = point.quality_high(),
                            .experts_run = {}});
  }
  return table;
}

std::string Expiry(const v1::TauSettings& settings) {
  if (!settings.has_expires()) return "for good";
  return "until " + absl::FormatTime("%Y-%m-%d %H:%M:%S UTC",
                                     absl::FromUnixSeconds(settings.expires().seconds()),
                                     absl::UTCTimeZone());
}

std::vector<Line> RenderModels(const v1::ListModelsResponse& list, size_t columns) {
  if (list.models().empty()) return {{{"no models", kDim}}};
  size_t name = 5;
  for (const v1::Model& model : list.models()) {
    name = std::max(name, std::min<size_t>(40, Width(Printable(model.name()))));
  }
  std::vector<Line> lines = {
      {{fmt::format("{}  {:<7}  {:<9}  {:<14}  {:>7}  {:>7}  {}", Left("model", name), "version",
                    "state", "task", "experts", "tau", "bounds"),
        kDim}}};
  for (const v1::Model& model : list.models()) {
    Line line = {{Left(Clip(Printable(model.name()), name), name) + "  ", kBold},
                 {Left(Printable(model.version()), 7) + "  ", kPlain},
                 {Left(model.ready() ? "ready" : "not ready", 9), model.ready() ? kGood : kBad}};
    if (!model.ready()) {
      line.push_back({"  " + Printable(model.error()), kPlain});
    } else {
      const v1::TauSettings& tau = model.settings();
      const bool dimmable = model.converted();
      const std::string task = model.tasks().empty() ? "-" : Printable(model.tasks(0));
      const std::string experts =
          dimmable && !model.moe_modules().empty()
              ? fmt::format("{}x{}", model.moe_modules_size(), model.moe_modules(0).experts())
              : "dense";
      line.push_back({fmt::format("  {}  {:>7}  ", Left(task, 14), experts), kPlain});
      line.push_back({Right(dimmable ? Number(tau.default_tau()) : "-", 7) + "  ", kLight});
      line.push_back({dimmable ? Interval(tau.min_tau(), tau.max_tau()) : "-", kPlain});
      if (tau.has_expires()) line.push_back({"  " + Expiry(tau), kDim});
    }
    lines.push_back(Clip(line, columns));
  }
  return lines;
}

std::vector<Line> RenderModel(const v1::Model& model, size_t columns, bool unicode) {
  std::vector<Line> lines = {
      {{Printable(model.name()), kLight},
       {", version " + Printable(model.version()) + ": ", kPlain},
       {model.ready() ? "ready" : "not ready", model.ready() ? kGood : kBad}}};
  if (!model.ready()) {
    lines.push_back({{"  " + Printable(model.error()), kPlain}});
    return lines;
  }
  Add(lines, "architecture",
      fmt::format("{}, {} layers of width {}, up to {} tokens", Printable(model.architecture()),
                  model.layers(), model.width(), model.max_tokens()));
  Add(lines, "tasks", Printable(fmt::format("{}", fmt::join(model.tasks(), ", "))));
  if (!model.labels().empty()) {
    std::vector<std::string> labels;
    for (const std::string& label : model.labels()) labels.push_back(Printable(label));
    AddWords(lines, "labels", labels, columns);
  }
  Add(lines, "weights",
      fmt::format("{:.1f} M parameters, stored as {}, {} in memory, loaded in {}",
                  double(model.parameters()) / 1e6, Printable(model.dtype()),
                  Bytes(double(model.weight_bytes())), Seconds(model.load_seconds())));
  Add(lines, "experts", Experts(model));
  if (model.converted()) {
    Add(lines, "gate", Gate(model.gate()));
    AddSettings(lines, model.settings());
  }
  Add(lines, "load",
      fmt::format("{} texts waiting, {} in the model", model.queued(), model.running()));
  AddCalibration(lines, model, columns, unicode);
  AddProvenance(lines, model.provenance(), columns);
  return lines;
}

}  // namespace dimmer::ctl
