// dimmer.json to and from MoeSpec (docs/package.md).
#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

// Larger than any model in sight, and small enough that products of two stay far from overflow.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxExperts = 1 << 16;
constexpr int64_t kMaxExpertSize = 1 << 18;
constexpr int64_t kMaxRouterWidth = 1 << 16;
constexpr int64_t kMaxHiddenWidth = 1 << 20;
constexpr size_t kMaxModules = 5 * kMaxLayers;

constexpr std::array kModules = {Module::kFfn, Module::kQ, Module::kK, Module::kV, Module::kO};

absl::StatusOr<Module> ReadModule(const JsonFields& fields) {
  DIMMER_ASSIGN_OR_RETURN(const std::string name, fields.String("module"));
  for (const Module module : kModules) {
    if (ModuleName(module) == name) return module;
  }
  return absl::InvalidArgumentError(
      fmt::format("{}: module: found {}, expected ffn, q, k, v or o", fields.where(), name));
}

absl::StatusOr<MoeModuleSpec> ReadModuleSpec(const JsonFields& fields) {
  MoeModuleSpec spec;
  DIMMER_ASSIGN_OR_RETURN(spec.layer, fields.Int("layer", 0, kMaxLayers - 1));
  DIMMER_ASSIGN_OR_RETURN(spec.module, ReadModule(fields));
  DIMMER_ASSIGN_OR_RETURN(spec.experts, fields.Int("experts", 1, kMaxExperts));
  DIMMER_ASSIGN_OR_RETURN(spec.expert_size, fields.Int("expert_size", 1, kMaxExpertSize));
  DIMMER_ASSIGN_OR_RETURN(spec.router_width, fields.Int("router_width", 1, kMaxRouterWidth));
  if (int64_t{spec.experts} * spec.expert_size > kMaxHiddenWidth) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {} experts of {} neurons, expected at most {} neurons in all",
                    fields.where(), spec.experts, spec.expert_size, kMaxHiddenWidth));
  }
  return spec;
}

absl::StatusOr<std::vector<MoeModuleSpec>> ReadModules(const JsonFields& fields) {
  DIMMER_ASSIGN_OR_RETURN(const auto objects, fields.Objects("modules"));
  if (objects.empty() || objects.size() > kMaxModules) {
    return absl::InvalidArgumentError(fmt::format("{}: modules: found {}, expected 1 to {}",
                                                  fields.where(), objects.size(), kMaxModules));
  }
  std::vector<MoeModuleSpec> modules;
  for (const JsonFields& object : objects) {
    DIMMER_ASSIGN_OR_RETURN(modules.emplace_back(), ReadModuleSpec(object));
    if (modules.size() < 2) continue;
    const auto key = [](const MoeModuleSpec& spec) { return std::pair(spec.layer, spec.module); };
    if (key(modules[modules.size() - 2]) >= key(modules.back())) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: found layer {}, expected modules to ascend by layer and module, without repeats",
          object.where(), modules.back().layer));
    }
  }
  return modules;
}

absl::StatusOr<GateSpec> ReadGate(const JsonFields& fields) {
  GateSpec gate;
  DIMMER_ASSIGN_OR_RETURN(const std::string kind, fields.String("kind"));
  if (kind == "dynamic_k") {
    gate.kind = GateKind::kDynamicK;
    DIMMER_ASSIGN_OR_RETURN(gate.default_tau, fields.Number("default_tau", 0, 1, 0.0));
  } else if (kind == "top_k") {
    gate.kind = GateKind::kTopK;
    DIMMER_ASSIGN_OR_RETURN(gate.top_k, fields.Int("top_k", 1, kMaxExperts));
  } else {
    return absl::InvalidArgumentError(
        fmt::format("{}: kind: found {}, expected dynamic_k or top_k", fields.where(), kind));
  }
  return gate;
}

absl::StatusOr<CalibrationPoint> ReadPoint(const JsonFields& fields, size_t modules) {
  CalibrationPoint point;
  DIMMER_ASSIGN_OR_RETURN(point.tau, fields.Number("tau", 0, 1));
  DIMMER_ASSIGN_OR_RETURN(point.flop_fraction, fields.Number("flop_fraction", 0, 16));
  DIMMER_ASSIGN_OR_RETURN(point.quality, fields.Number("quality", -1e9, 1e9));
  DIMMER_ASSIGN_OR_RETURN(point.quality_low, fields.Number("quality_low", -1e9, 1e9));
  DIMMER_ASSIGN_OR_RETURN(point.quality_high, fields.Number("quality_high", -1e9, 1e9));
  DIMMER_ASSIGN_OR_RETURN(point.experts_run, fields.Numbers("experts_run"));
  if (point.experts_run.size() == modules) return point;
  return absl::InvalidArgumentError(fmt::format("{}: experts_run: found {} numbers, expected {}",
                                                fields.where(), point.experts_run.size(), modules));
}

absl::StatusOr<Calibration> ReadCalibration(const JsonFields& fields, size_t modules) {
  Calibration calibration;
  DIMMER_ASSIGN_OR_RETURN(calibration.metric, fields.String("metric"));
  DIMMER_ASSIGN_OR_RETURN(calibration.rows, fields.Int("rows", 0, INT64_MAX));
  DIMMER_ASSIGN_OR_RETURN(calibration.tokens, fields.Int("tokens", 0, INT64_MAX));
  DIMMER_ASSIGN_OR_RETURN(const auto points, fields.Objects("points"));
  for (const JsonFields& object : points) {
    DIMMER_ASSIGN_OR_RETURN(CalibrationPoint point, ReadPoint(object, modules));
    const bool ascends =
        calibration.points.empty() ? point.tau == 0 : point.tau > calibration.points.back().tau;
    if (!ascends) {
      return absl::InvalidArgumentError(
          fmt::format("{}: tau: found {}, expected points that start at 0 and ascend",
                      object.where(), point.tau));
    }
    calibration.points.push_back(std::move(point));
  }
  return calibration;
}

}  // namespace

absl::StatusOr<MoeSpec> MoeSpecFromJson(const nlohmann::json& json, const std::string& where) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, where));
  DIMMER_ASSIGN_OR_RETURN(const int64_t version, fields.Int("format_version", 1, INT32_MAX));
  if (version > kPackageFormatVersion) {
    return absl::InvalidArgumentError(
        fmt::format("{}: format_version: found {}, expected at most {}: the package was made by a "
                    "newer dimmer-convert, upgrade this program",
                    where, version, kPackageFormatVersion));
  }
  // Within a version nothing is optional reading: an unknown field would be silently not obeyed.
  for (const auto& [key, value] : fields.json().items()) {
    constexpr std::array kKnown = {"format_version", "modules",    "gate",
                                   "calibration",    "provenance", "checksums"};
    if (std::find(kKnown.begin(), kKnown.end(), key) == kKnown.end()) {
      return absl::InvalidArgumentError(fmt::format("{}: found unknown key {}, expected only {}",
                                                    where, key, fmt::join(kKnown, ", ")));
    }
  }
  MoeSpec spec;
  DIMMER_ASSIGN_OR_RETURN(spec.modules, ReadModules(fields));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields gate, fields.Object("gate"));
  DIMMER_ASSIGN_OR_RETURN(spec.gate, ReadGate(gate));
  if (fields.Has("calibration")) {
    DIMMER_ASSIGN_OR_RETURN(const JsonFields calibration, fields.Object("calibration"));
    DIMMER_ASSIGN_OR_RETURN(spec.calibration, ReadCalibration(calibration, spec.modules.size()));
  }
  spec.provenance = json.value("provenance", nlohmann::json::object());
  return spec;
}

nlohmann::json ToJson(const MoeSpec& spec) {
  nlohmann::json json;
  json["format_version"] = kPackageFormatVersion;
  for (const MoeModuleSpec& module : spec.modules) {
    json["modules"].push_back({{"layer", module.layer},
                               {"module", std::string(ModuleName(module.module))},
                               {"experts", module.experts},
                               {"expert_size", module.expert_size},
                               {"router_width", module.router_width}});
  }
  if (spec.gate.kind == GateKind::kDynamicK) {
    json["gate"] = {{"kind", "dynamic_k"}, {"default_tau", spec.gate.default_tau}};
  } else {
    json["gate"] = {{"kind", "top_k"}, {"top_k", spec.gate.top_k}};
  }
  if (!spec.calibration.empty()) {
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
  }
  json["provenance"] = spec.provenance.is_null() ? nlohmann::json::object() : spec.provenance;
  return json;
}

}  // namespace dimmer
