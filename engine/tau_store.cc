#include "engine/tau_store.h"

#include <spdlog/spdlog.h>

#include <array>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>

#include "engine/package/json_fields.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::system_clock;

constexpr int kFormat = 1;
constexpr uint64_t kMaxFileBytes = 16u << 20;

absl::StatusOr<Module> ModuleFromName(std::string_view name, std::string_view where) {
  for (const Module module : {Module::kFfn, Module::kQ, Module::kK, Module::kV, Module::kO}) {
    if (ModuleName(module) == name) return module;
  }
  return absl::InvalidArgumentError(
      fmt::format("{}: module: found \"{}\", expected ffn, q, k, v or o", where, name));
}

json ToJson(const TauOverrides& overrides) {
  json object = json::object();
  if (overrides.default_tau) object["default_tau"] = *overrides.default_tau;
  if (overrides.min_tau) object["min_tau"] = *overrides.min_tau;
  if (overrides.max_tau) object["max_tau"] = *overrides.max_tau;
  for (const auto& [key, tau] : overrides.layers) {
    object["layers"].push_back(
        {{"layer", key.first}, {"module", ModuleName(key.second)}, {"tau", tau}});
  }
  return object;
}

absl::StatusOr<std::optional<double>> Tau(const JsonFields& fields, std::string_view key) {
  if (!fields.Has(key)) return std::nullopt;
  DIMMER_ASSIGN_OR_RETURN(const double tau, fields.Number(key, 0, 1));
  return tau;
}

absl::StatusOr<TauOverrides> OverridesFromJson(const JsonFields& fields) {
  TauOverrides overrides;
  DIMMER_ASSIGN_OR_RETURN(overrides.default_tau, Tau(fields, "default_tau"));
  DIMMER_ASSIGN_OR_RETURN(overrides.min_tau, Tau(fields, "min_tau"));
  DIMMER_ASSIGN_OR_RETURN(overrides.max_tau, Tau(fields, "max_tau"));
  if (!fields.Has("layers")) return overrides;
  DIMMER_ASSIGN_OR_RETURN(const std::vector<JsonFields> layers, fields.Objects("layers"));
  for (const JsonFields& entry : layers) {
    DIMMER_ASSIGN_OR_RETURN(const int64_t layer,
                            entry.Int("layer", 0, std::numeric_limits<uint32_t>::max()));
    DIMMER_ASSIGN_OR_RETURN(const std::string name, entry.String("module"));
    DIMMER_ASSIGN_OR_RETURN(const Module module, ModuleFromName(name, entry.where()));
    DIMMER_ASSIGN_OR_RETURN(const double tau, entry.Number("tau", 0, 1));
    overrides.layers[{static_cast<uint32_t>(layer), module}] = tau;
  }
  return overrides;
}

absl::StatusOr<TauRecord> RecordFromJson(const JsonFields& fields) {
  TauRecord record;
  DIMMER_ASSIGN_OR_RETURN(const int64_t revision,
                          fields.Int("revision", 1, std::numeric_limits<int64_t>::max() - 1));
  record.revision = static_cast<uint64_t>(revision);
  DIMMER_ASSIGN_OR_RETURN(record.permanent, OverridesFromJson(fields));
  if (!fields.Has("temporary")) return record;
  DIMMER_ASSIGN_OR_RETURN(const JsonFields temporary, fields.Object("temporary"));
  DIMMER_ASSIGN_OR_RETURN(record.temporary, OverridesFromJson(temporary));
  // Up to the year 2262, where a system_clock in nanoseconds ends.
  DIMMER_ASSIGN_OR_RETURN(const int64_t expires,
                          temporary.Int("expires_unix_ms", 0, 9'223'372'036'854));
  record.expires = system_clock::time_point(milliseconds(expires));
  return record;
}

}  // namespace

std::string TauRecordsToJson(const TauRecords& records) {
  json models = json::object();
  for (const auto& [model, record] : records) {
    json object = ToJson(record.permanent);
    object["revision"] = record.revision;
    if (record.expires) {
      object["temporary"] = ToJson(record.temporary);
      object["temporary"]["expires_unix_ms"] =
          std::chrono::floor<milliseconds>(*record.expires).time_since_epoch().count();
    }
    models[model] = std::move(object);
  }
  return json{{"format", kFormat}, {"models", std::move(models)}}.dump(2) + "\n";
}

absl::StatusOr<TauRecords> TauRecordsFromJson(std::string_view text, const std::string& where) {
  DIMMER_ASSIGN_OR_RETURN(const json root, ParseJson(text, where));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(root, where));
  DIMMER_ASSIGN_OR_RETURN(const int64_t format,
                          fields.Int("format", kFormat, std::numeric_limits<int64_t>::max()));
  if (format > kFormat) {
    return absl::FailedPreconditionError(
        fmt::format("{}: format: found {}, expected {}: a newer server has written it", where,
                    format, kFormat));
  }
  DIMMER_ASSIGN_OR_RETURN(const JsonFields models, fields.Object("models"));
  TauRecords records;
  for (const auto& [model, value] : models.json().items()) {
    DIMMER_ASSIGN_OR_RETURN(const JsonFields record, models.Object(model));
    DIMMER_ASSIGN_OR_RETURN(records[model], RecordFromJson(record));
  }
  return records;
}

TauStore::TauStore(const std::string& directory) {
  if (directory.empty()) return;
  path_ = (std::filesystem::path(directory) / "tau.json").string();
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    spdlog::warn("state directory {}: {}; changes of tau will fail", directory, error.message());
  }
}

absl::StatusOr<TauRecords> TauStore::Read() const {
  if (path_.empty()) return TauRecords();
  const absl::StatusOr<std::string> text = ReadTextFile(path_, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return TauRecords();
  if (!text.ok()) return Annotate(text.status(), "the state file can't be read");
  absl::StatusOr<TauRecords> records = TauRecordsFromJson(*text, path_);
  if (!absl::IsInvalidArgument(records.status())) return records;
  DIMMER_RETURN_IF_ERROR(SetAside(records.status()));
  return TauRecords();
}

absl::Status TauStore::SetAside(const absl::Status& why) const {
  std::error_code error;
  std::string aside = path_ + ".corrupt";
  for (int i = 1; std::filesystem::exists(aside, error); ++i) {
    aside = fmt::format("{}.corrupt.{}", path_, i);
  }
  if (!error) std::filesystem::rename(path_, aside, error);
  if (error) {
    return absl::InternalError(
        fmt::format("the state file is not usable: {}; it could not be renamed to {}: {}",
                    Message(why), aside, error.message()));
  }
  spdlog::warn(
      "the state file is not usable, every model starts with the tau of its package: {}; kept as "
      "{}",
      Message(why), aside);
  return absl::OkStatus();
}

absl::Status TauStore::Write(const TauRecords& records) const try {
  if (path_.empty()) return absl::OkStatus();
  const absl::Status status = WriteTextFile(path_, TauRecordsToJson(records));
  // Whatever it is, a full disk too, the caller can do nothing about it.
  return status.ok() ? status : absl::InternalError(status.message());
} catch (const json::exception& error) {  // a model's name that is not UTF-8
  return absl::InternalError(fmt::format("{}: can't be written: {}", path_, error.what()));
}

}  // namespace dimmer
