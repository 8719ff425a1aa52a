// dimmer.json: to and from JSON. docs/package.md is the specification.
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <utility>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr std::array<Module, 5> kModules = {Module::kFfn, Module::kQ, Module::kK, Module::kV,
                                            Module::kO};
constexpr std::string_view kDynamicK = "dynamic_k";
constexpr std::string_view kTopK = "top_k";

// Far above any real model, and low enough that no product of two of them overflows.
constexpr int64_t kMaxLayers = 1 << 12;
constexpr int64_t kMaxExperts = 1 << 16;
constexpr int64_t kMaxExpertSize = 1 << 20;
constexpr int64_t kMaxRouterWidth = 1 << 16;
constexpr int64_t kMaxHidden = 1 << 22;  // experts * expert_size
constexpr double kMaxFraction = 10;      // routers can cost more than the experts they save
constexpr double kMaxQuality = 1e12;
constexpr double kRounding = 1 + 1e-6;  // of a mean over many tokens

absl::Status Wrong(const JsonFields& fields, std::string_view key, std::string_view found,
                   std::string_view expected) {
  return absl::InvalidArgumentError(
      fmt::format("{}: {}: found {}, expected {}", fields.where(), key, found, expected));
}

absl::StatusOr<Module> ParseModule(const JsonFields& fields) {
  DIMMER_ASSIGN_OR_RETURN(const std::string name, fields.String("module"));
  for (const Module module : kModules) {
    if (ModuleName(module) == name) return module;
  }
  return Wrong(fields, "module", fmt::format("\"{:.40}\"", name), "one of ffn, q, k, v, o");
}

absl::StatusOr<MoeModuleSpec> ParseModuleSpec(const JsonFields& fields) {
  DIMMER_RETURN_IF_ERROR(
      fields.OnlyKeys({"layer", "module", "experts", "expert_size", "router_width"}));
  DIMMER_ASSIGN_OR_RETURN(const int64_t layer, fields.Int("layer", 0, kMaxLayers - 1));
  DIMMER_ASSIGN_OR_RETURN(const Module module, ParseModule(fields));
  DIMMER_ASSIGN_OR_RETURN(const int64_t experts, fields.Int("experts", 1, kMaxExperts));
  DIMMER_ASSIGN_OR_RETURN(const int64_t size, fields.Int("expert_size", 1, kMaxExpertSize));
  DIMMER_ASSIGN_OR_RETURN(const int64_t width, fields.Int("router_width", 1, kMaxRouterWidth));
  if (experts * size > kMaxHidden) {
    return Wrong(fields, "experts * expert_size", fmt::format("{}", experts * size),
                 fmt::format("at most {}", kMaxHidden));
  }
  return MoeModuleSpec{.layer = static_cast<uint32_t>(layer),
                       .module = module,
                       .experts = static_cast<uint32_t>(experts),
                       .expert_size = static_cast<uint32_t>(size),
                       .router_width = static_cast<uint32_t>(width)};
}

absl::StatusOr<std::vector<MoeModuleSpec>> ParseModules(const JsonFields& root) {
  DIMMER_ASSIGN_OR_RETURN(const std::vector<JsonFields> entries, root.Objects("modules"));
  if (entries.empty()) return Wrong(root, "modules", "none", "at least one");
  std::vector<MoeModuleSpec> modules;
  for (const JsonFields& entry : entries) {
    DIMMER_ASSIGN_OR_RETURN(const MoeModuleSpec spec, ParseModuleSpec(entry));
    if (!modules.empty() && std::pair(spec.layer, spec.module) <=
                                std::pair(modules.back().layer, modules.back().module)) {
      return Wrong(entry, "layer, module",
                   fmt::format("{} {} after {} {}", spec.layer, ModuleName(spec.module),
                               modules.back().layer, ModuleName(modules.back().module)),
                   "ascending ones");
    }
    modules.push_back(spec);
  }
  return modules;
}

absl::StatusOr<GateSpec> ParseGate(const JsonFields& root, std::span<const MoeModuleSpec> modules) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, root.Object("gate"));
  DIMMER_ASSIGN_OR_RETURN(const std::string kind, fields.String("kind"));
  GateSpec gate;
  if (kind == kDynamicK) {
    DIMMER_RETURN_IF_ERROR(fields.OnlyKeys({"kind", "default_tau"}));
    DIMMER_ASSIGN_OR_RETURN(gate.default_tau, fields.Number("default_tau", 0, 1));
    return gate;
  }
  if (kind != kTopK) {
    return Wrong(fields, "kind", fmt::format("\"{:.40}\"", kind), "dynamic_k or top_k");
  }
  DIMMER_RETURN_IF_ERROR(fields.OnlyKeys({"kind", "top_k"}));
  int64_t most = kMaxExperts;
  for (const MoeModuleSpec& spec : modules) most = std::min<int64_t>(most, spec.experts);
  DIMMER_ASSIGN_OR_RETURN(const int64_t top_k, fields.Int("top_k", 1, most));
  gate.kind = GateKind::kTopK;
  gate.top_k = static_cast<uint32_t>(top_k);
  return gate;
}

absl::StatusOr<CalibrationPoint> ParsePoint(const JsonFields& fields,
                                            std::span<const MoeModuleSpec> modules) {
  DIMMER_RETURN_IF_ERROR(fields.OnlyKeys(
      {"tau", "flop_fraction", "quality", "quality_low", "quality_high", "experts_run"}));
  CalibrationPoint point;
  DIMMER_ASSIGN_OR_RETURN(point.tau, fields.Number("tau", 0, 1));
  DIMMER_ASSIGN_OR_RETURN(point.flop_fraction, fields.Number("flop_fraction", 0, kMaxFraction));
  DIMMER_ASSIGN_OR_RETURN(point.quality, fields.Number("quality", -kMaxQuality, kMaxQuality));
  DIMMER_ASSIGN_OR_RETURN(point.quality_low,
                          fields.Number("quality_low", -kMaxQuality, kMaxQuality));
  DIMMER_ASSIGN_OR_RETURN(point.quality_high,
                          fields.Number("quality_high", point.quality_low, kMaxQuality));
  DIMMER_ASSIGN_OR_RETURN(point.experts_run, fields.Numbers("experts_run"));
  if (point.experts_run.size() != modules.size()) {
    return Wrong(fields, "experts_run", fmt::format("{} numbers", point.experts_run.size()),
                 fmt::format("{}, one per module", modules.size()));
  }
  for (size_t i = 0; i < modules.size(); ++i) {
    if (!(point.experts_run[i] >= 0 && point.experts_run[i] <= modules[i].experts * kRounding)) {
      return Wrong(fields, fmt::format("experts_run[{}]", i),
                   fmt::format("{}", point.experts_run[i]),
                   fmt::format("a number in [0, {}], the module's experts", modules[i].experts));
    }
  }
  return point;
}

absl::StatusOr<Calibration> ParseCalibration(const JsonFields& root,
                                             std::span<const MoeModuleSpec> modules) {
  Calibration calibration;
  if (!root.Has("calibration")) return calibration;
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, root.Object("calibration"));
  DIMMER_RETURN_IF_ERROR(fields.OnlyKeys({"metric", "rows", "tokens", "points"}));
  DIMMER_ASSIGN_OR_RETURN(calibration.metric, fields.String("metric"));
  DIMMER_ASSIGN_OR_RETURN(const int64_t rows, fields.Int("rows", 0, INT64_MAX));
  DIMMER_ASSIGN_OR_RETURN(const int64_t tokens, fields.Int("tokens", 0, INT64_MAX));
  calibration.rows = static_cast<uint64_t>(rows);
  calibration.tokens = static_cast<uint64_t>(tokens);
  DIMMER_ASSIGN_OR_RETURN(const std::vector<JsonFields> points, fields.Objects("points"));
  for (const JsonFields& entry : points) {
    DIMMER_ASSIGN_OR_RETURN(CalibrationPoint point, ParsePoint(entry, modules));
    const bool first = calibration.points.empty();
    if (first ? point.tau != 0 : point.tau <= calibration.points.back().tau) {
      return Wrong(entry, "tau", fmt::format("{}", point.tau),
                   first ? "0 in the first point" : "more than the point before");
    }
    calibration.points.push_back(std::move(point));
  }
  if (calibration.points.empty()) return Wrong(fields, "points", "none", "at least one");
  return calibration;
}

absl::Status CheckVersion(const JsonFields& root) {
  DIMMER_ASSIGN_OR_RETURN(const int64_t version, root.Int("format_version", 1, INT64_MAX));
  if (version <= kPackageFormatVersion) return absl::OkStatus();
  return Wrong(root, "format_version", fmt::format("{}", version),
               fmt::format("at most {}: a newer program wrote this package; upgrade to read it",
                           kPackageFormatVersion));
}

}  // namespace

std::string RouterTensorName(uint32_t layer, Module module, int which) {
  return fmt::format("layers.{}.{}.router.w{}", layer, ModuleName(module), which);
}

nlohmann::json ToJson(const MoeSpec& spec) {
  nlohmann::json json = {{"format_version", kPackageFormatVersion},
                         {"modules", nlohmann::json::array()},
                         {"provenance", spec.provenance}};
  for (const MoeModuleSpec& module : spec.modules) {
    json["modules"].push_back({{"layer", module.layer},
                               {"module", ModuleName(module.module)},
                               {"experts", module.experts},
                               {"expert_size", module.expert_size},
                               {"router_width", module.router_width}});
  }
  if (spec.gate.kind == GateKind::kTopK) {
    json["gate"] = {{"kind", kTopK}, {"top_k", spec.gate.top_k}};
  } else {
    json["gate"] = {{"kind", kDynamicK}, {"default_tau", spec.gate.default_tau}};
  }
  if (spec.calibration.empty()) return json;
  nlohmann::json points = nlohmann::json::array();
  for (const CalibrationPoint& point : spec.calibration.points) {
    points.push_back({{"tau", point.tau},
                      {"flop_fraction", point.flop_fraction},
                      {"quality", point.quality},
                      {"quality_low", point.quality_low},
                      {"quality_high", point.quality_high},
                      {"experts_run", point.experts_run}});
  }
  json["calibration"] = {{"metric", spec.calibration.metric},
                         {"rows", spec.calibration.rows},
                         {"tokens", spec.calibration.tokens},
                         {"points", std::move(points)}};
  return json;
}

absl::StatusOr<MoeSpec> MoeSpecFromJson(const nlohmann::json& json, const std::string& where) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields root, JsonFields::Of(json, where));
  // Before anything else: of a newer format only this key is known.
  DIMMER_RETURN_IF_ERROR(CheckVersion(root));
  DIMMER_RETURN_IF_ERROR(root.OnlyKeys(
      {"format_version", "modules", "gate", "calibration", "provenance", "checksums"}));
  MoeSpec spec;
  DIMMER_ASSIGN_OR_RETURN(spec.modules, ParseModules(root));
  DIMMER_ASSIGN_OR_RETURN(spec.gate, ParseGate(root, spec.modules));
  DIMMER_ASSIGN_OR_RETURN(spec.calibration, ParseCalibration(root, spec.modules));
  if (root.Has("provenance")) spec.provenance = json.at("provenance");
  return spec;
}

}  // namespace dimmer
