#include "engine/tau_control.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "engine/util/status.h"

namespace dimmer {
namespace {

using std::chrono::system_clock;

constexpr std::chrono::hours kLongestTtl{24 * 3650};

absl::Status CheckTau(std::string_view field, double tau) {
  if (std::isfinite(tau) && tau >= 0 && tau <= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: found {}, expected a number in [0, 1]", field, tau));
}

std::string LayerField(uint32_t layer, Module module) {
  return fmt::format("layers[layer {}, {}].tau", layer, ModuleName(module));
}

// Every field is in [0, 1] already: min_tau <= default_tau and the layers' tau <= max_tau.
absl::Status CheckOrder(const TauSettings& settings, const std::vector<MoeCost>& modules) {
  if (settings.min_tau > settings.max_tau) {
    return absl::InvalidArgumentError(fmt::format("min_tau: found {}, expected at most max_tau {}",
                                                  settings.min_tau, settings.max_tau));
  }
  const auto check = [&](const std::string& field, double tau) {
    if (tau >= settings.min_tau && tau <= settings.max_tau) return absl::OkStatus();
    return absl::InvalidArgumentError(
        fmt::format("{}: found {}, expected a number in [min_tau {}, max_tau {}]; set both at once",
                    field, tau, settings.min_tau, settings.max_tau));
  };
  DIMMER_RETURN_IF_ERROR(check("default_tau", settings.default_tau));
  for (size_t i = 0; i < settings.layer_tau.size(); ++i) {
    if (settings.layer_tau[i] < 0) continue;
    DIMMER_RETURN_IF_ERROR(
        check(LayerField(modules[i].layer, modules[i].module), settings.layer_tau[i]));
  }
  return absl::OkStatus();
}

void Fit(TauSettings& settings) {
  settings.default_tau = std::clamp(settings.default_tau, settings.min_tau, settings.max_tau);
  for (double& tau : settings.layer_tau) {
    if (tau >= 0) tau = std::clamp(tau, settings.min_tau, settings.max_tau);
  }
}

size_t ModuleIndex(const std::vector<MoeCost>& modules, uint32_t layer, Module module) {
  const auto found = std::find_if(modules.begin(), modules.end(), [&](const MoeCost& cost) {
    return cost.layer == layer && cost.module == module;
  });
  return static_cast<size_t>(found - modules.begin());
}

// `settings` with the fields that `overrides` sets; layers that the model does not have are passed
// over.
TauSettings Apply(TauSettings settings, const TauOverrides& overrides,
                  const std::vector<MoeCost>& modules) {
  settings.default_tau = overrides.default_tau.value_or(settings.default_tau);
  settings.min_tau = overrides.min_tau.value_or(settings.min_tau);
  settings.max_tau = overrides.max_tau.value_or(settings.max_tau);
  for (const auto& [key, tau] : overrides.layers) {
    const size_t index = ModuleIndex(modules, key.first, key.second);
    if (index == modules.size()) continue;
    settings.layer_tau.resize(modules.size(), -1);
    settings.layer_tau[index] = tau;
  }
  return settings;
}

void Merge(const TauOverrides& from, TauOverrides& to) {
  if (from.default_tau) to.default_tau = from.default_tau;
  if (from.min_tau) to.min_tau = from.min_tau;
  if (from.max_tau) to.max_tau = from.max_tau;
  for (const auto& [key, tau] : from.layers) to.layers[key] = tau;
}

void Clear(const TauOverrides& fields, TauOverrides& from) {
  if (fields.default_tau) from.default_tau.reset();
  if (fields.min_tau) from.min_tau.reset();
  if (fields.max_tau) from.max_tau.reset();
  for (const auto& [key, tau] : fields.layers) from.layers.erase(key);
}

absl::StatusOr<TauOverrides> OverridesOf(const TauChange& change, const std::string& model,
                                         const std::vector<MoeCost>& modules) {
  TauOverrides overrides{.default_tau = change.default_tau,
                         .min_tau = change.min_tau,
                         .max_tau = change.max_tau,
                         .layers = {}};
  if (change.default_tau) DIMMER_RETURN_IF_ERROR(CheckTau("default_tau", *change.default_tau));
  if (change.min_tau) DIMMER_RETURN_IF_ERROR(CheckTau("min_tau", *change.min_tau));
  if (change.max_tau) DIMMER_RETURN_IF_ERROR(CheckTau("max_tau", *change.max_tau));
  for (const TauChange::LayerTau& layer : change.layers) {
    DIMMER_RETURN_IF_ERROR(CheckTau(LayerField(layer.layer, layer.module), layer.tau));
    overrides.layers[{layer.layer, layer.module}] = layer.tau;
  }
  if (!overrides.empty() && modules.empty()) {
    return absl::FailedPreconditionError(
        fmt::format("model {} has no experts: it always runs dense", model));
  }
  for (const auto& [key, tau] : overrides.layers) {
    if (ModuleIndex(modules, key.first, key.second) < modules.size()) continue;
    return absl::InvalidArgumentError(fmt::format(
        "layers: found layer {}, {}: model {} has no experts there, only in {} modules of layers "
        "{} to {}",
        key.first, ModuleName(key.second), model, modules.size(), modules.front().layer,
        modules.back().layer));
  }
  return overrides;
}

absl::Status CheckTtl(const TauChange& change, const TauOverrides& overrides) {
  if (change.ttl < std::chrono::nanoseconds::zero() || change.ttl > kLongestTtl) {
    return absl::InvalidArgumentError(fmt::format("ttl: found {} s, expected 0 (for good) to {} s",
                                                  std::chrono::duration<double>(change.ttl).count(),
                                                  std::chrono::seconds(kLongestTtl).count()));
  }
  if (change.ttl.count() > 0 && overrides.empty()) {
    return absl::InvalidArgumentError("ttl: found a ttl, but nothing to change");
  }
  return absl::OkStatus();
}

// `record` with the change made.
TauRecord Changed(TauRecord record, const TauOverrides& overrides, std::chrono::nanoseconds ttl,
                  system_clock::time_point now) {
  if (ttl.count() > 0) {
    Merge(overrides, record.temporary);
    // In milliseconds, as the state file has it.
    record.expires = std::chrono::ceil<std::chrono::milliseconds>(now + ttl);
  } else {
    Merge(overrides, record.permanent);
    Clear(overrides, record.temporary);
    if (record.temporary.empty()) record.expires.reset();
  }
  ++record.revision;
  return record;
}

// The record once its temporary part has run out.
TauRecord AfterExpiry(TauRecord record) {
  if (!record.expires) return record;
  record.temporary = {};
  record.expires.reset();
  ++record.revision;
  return record;
}

bool Differ(TauSettings a, const TauSettings& b) {
  a.layer_tau.resize(std::max(a.layer_tau.size(), b.layer_tau.size()), -1);
  std::vector<double> layers = b.layer_tau;
  layers.resize(a.layer_tau.size(), -1);
  return std::tie(a.default_tau, a.min_tau, a.max_tau, a.layer_tau) !=
         std::tie(b.default_tau, b.min_tau, b.max_tau, layers);
}

}  // namespace

absl::StatusOr<TauSettings> InitialTau(const ServingConfig& serving, const GateSpec& gate) {
  TauSettings settings;
  settings.min_tau = serving.min_tau.value_or(settings.min_tau);
  settings.max_tau = serving.max_tau.value_or(settings.max_tau);
  settings.default_tau = serving.default_tau.value_or(gate.default_tau);
  DIMMER_RETURN_IF_ERROR(CheckTau("min_tau", settings.min_tau));
  DIMMER_RETURN_IF_ERROR(CheckTau("max_tau", settings.max_tau));
  DIMMER_RETURN_IF_ERROR(CheckTau("default_tau", settings.default_tau));
  if (!serving.default_tau && settings.min_tau <= settings.max_tau) Fit(settings);
  DIMMER_RETURN_IF_ERROR(CheckOrder(settings, {}));
  return settings;
}

TauControl::TauControl(TauStore store, TauRecords records, Clock clock)
    : clock_(std::move(clock)), store_(std::move(store)), records_(std::move(records)) {}

void TauControl::Resolve(const std::string& model, const TauRecord& record, Entry& entry) {
  const auto fitted = [&](TauSettings settings) {
    const absl::Status status = CheckOrder(settings, entry.modules);
    if (status.ok()) return settings;
    // Only a package or config.yaml that changed under a kept state gets here.
    spdlog::warn("model {}: what SetTau set before no longer fits and was adapted: {}", model,
                 Message(status));
    if (settings.min_tau > settings.max_tau) {
      settings.min_tau = entry.initial.min_tau;
      settings.max_tau = entry.initial.max_tau;
    }
    Fit(settings);
    return settings;
  };
  entry.lasting = fitted(Apply(entry.initial, record.permanent, entry.modules));
  entry.lasting.revision = AfterExpiry(record).revision;
  entry.in_force = entry.lasting;
  if (record.expires) {
    entry.in_force = fitted(Apply(entry.lasting, record.temporary, entry.modules));
  }
  entry.in_force.revision = record.revision;
}

void TauControl::Register(const std::string& model, const TauSettings& initial,
                          const ModelInfo& info) {
  Entry entry{.initial = initial,
              .modules = info.cost.moe,
              .calibration = info.calibration,
              .in_force = {},
              .lasting = {}};
  std::lock_guard change_lock(change_mutex_);
  std::lock_guard lock(mutex_);
  TauRecord& record = records_[model];
  Resolve(model, record, entry);
  const auto known = entries_.find(model);
  if (known != entries_.end() && (Differ(known->second.in_force, entry.in_force) ||
                                  Differ(known->second.lasting, entry.lasting))) {
    ++record.revision;
    Resolve(model, record, entry);
  }
  entries_[model] = std::move(entry);
}

absl::StatusOr<TauAnswer> TauControl::Set(const std::string& model, const TauChange& change) {
  std::lock_guard change_lock(change_mutex_);
  TauRecords records;
  Entry entry;
  {
    std::lock_guard lock(mutex_);
    const auto found = entries_.find(model);
    if (found == entries_.end()) return UnknownModel(model);
    entry = found->second;
    records = records_;
  }
  TauRecord& record = records[model];
  const system_clock::time_point now = clock_();
  if (record.expires && *record.expires <= now) record = AfterExpiry(record);
  if (change.if_revision != 0 && change.if_revision != record.revision) {
    return absl::AbortedError(
        fmt::format("if_revision: found {}, but the settings of model {} are "
                    "at revision {}",
                    change.if_revision, model, record.revision));
  }
  DIMMER_ASSIGN_OR_RETURN(const TauOverrides overrides, OverridesOf(change, model, entry.modules));
  DIMMER_RETURN_IF_ERROR(CheckTtl(change, overrides));
  if (overrides.empty()) return Answer(entry, record);

  TauOverrides earlier = record.temporary;
  Clear(overrides, earlier);
  const auto earlier_expires = record.expires;
  record = Changed(record, overrides, change.ttl, now);
  const TauSettings lasting = Apply(entry.initial, record.permanent, entry.modules);
  if (change.ttl.count() == 0) DIMMER_RETURN_IF_ERROR(CheckOrder(lasting, entry.modules));
  DIMMER_RETURN_IF_ERROR(
      CheckOrder(Apply(lasting, record.temporary, entry.modules), entry.modules));
  Resolve(model, record, entry);
  TauAnswer answer = Answer(entry, record);
  if (!earlier.empty() && record.expires != earlier_expires) answer.moved_expiry = earlier_expires;
  if (change.dry_run) return answer;
  DIMMER_RETURN_IF_ERROR(store_.Write(records));
  {
    std::lock_guard lock(mutex_);
    records_ = std::move(records);
    entries_[model] = std::move(entry);
  }
  return answer;
}

absl::StatusOr<TauAnswer> TauControl::Get(const std::string& model) const {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(model);
  if (found == entries_.end()) return UnknownModel(model);
  return Answer(found->second, records_.find(model)->second);
}

absl::StatusOr<TauSettings> TauControl::Settings(const std::string& model) const {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(model);
  if (found == entries_.end()) return UnknownModel(model);
  return Look(found->second, records_.find(model)->second).settings;
}

TauControl::View TauControl::Look(const Entry& entry, const TauRecord& record) const {
  if (!record.expires) return {entry.lasting, std::nullopt};
  if (*record.expires <= clock_()) return {entry.lasting, std::nullopt};
  return {entry.in_force, record.expires};
}

TauAnswer TauControl::Answer(const Entry& entry, const TauRecord& record) const {
  const View view = Look(entry, record);
  TauAnswer answer{.state = {.settings = view.settings, .expires = view.expires},
                   .moved_expiry = {},
                   .predicted = {}};
  if (entry.calibration.empty()) return answer;
  const CalibrationPoint point = entry.calibration.At(view.settings.default_tau);
  answer.predicted = TauPrediction{.flop_fraction = point.flop_fraction,
                                   .quality = point.quality,
                                   .quality_low = point.quality_low,
                                   .quality_high = point.quality_high,
                                   .metric = entry.calibration.metric};
  return answer;
}

}  // namespace dimmer
