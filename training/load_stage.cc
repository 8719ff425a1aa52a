// Conversion::Create and the bookkeeping between stages.
#include <functional>
#include <utility>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"
#include "training/conversion.h"
#include "training/fingerprint.h"
#include "training/package_target.h"

namespace dimmer {
namespace {

constexpr uint64_t kMaxNotesBytes = 1 << 20;

// Heads, norm epsilon, activation and whatever else config.json says of the model: all but where it
// was saved from and with what.
std::string ConfigForFingerprint(nlohmann::json config) {
  config.erase("_name_or_path");
  config.erase("transformers_version");
  return config.dump();
}

// Without fine-tuning, the checkpoint must be what is to be served.
absl::Status CheckUntrained(const ConvertOptions& options, const BaseModel& base) {
  if (options.sparsify.epochs > 0) return absl::OkStatus();
  if (base.fresh_classifier || base.fresh_pooler) {
    return absl::InvalidArgumentError(
        fmt::format("--epochs: found 0, but {} has no {} for these labels, which needs training",
                    options.checkpoint, base.fresh_classifier ? "classifier" : "pooler"));
  }
  if (options.activation == "relu" && base.activation != Activation::kRelu) {
    return absl::InvalidArgumentError(
        "--epochs: found 0, expected fine-tuning or --activation keep: the checkpoint's activation "
        "is not ReLU, which it would have to learn");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Conversion>> Conversion::Create(const ConvertOptions& options,
                                                               Progress& progress) {
  DIMMER_RETURN_IF_ERROR(options.Validate());
  // What only the last stage needs is checked before hours of training, not after.
  DIMMER_RETURN_IF_ERROR(CheckTarget(PackageTarget(options.to)));
  std::unique_ptr<Conversion> conversion(new Conversion(progress));
  DIMMER_ASSIGN_OR_RETURN(conversion->lock_, WorkLock::Acquire(options.work));
  ConversionInputs& inputs = conversion->inputs_;
  inputs.options = options;
  if (!options.notes.empty()) {
    auto notes = ReadTextFile(options.notes, kMaxNotesBytes);
    if (!notes.ok()) return Annotate(notes.status(), "--notes");
    inputs.notes = *std::move(notes);
  }
  DIMMER_ASSIGN_OR_RETURN(LoadedTask loaded, LoadTask(options, progress));
  inputs.base = std::move(loaded.base);
  DIMMER_RETURN_IF_ERROR(CheckUntrained(options, inputs.base));
  if (options.route.width == 0) {
    inputs.options.route.width = RouterWidthFor(inputs.base.layout.width);
  }
  inputs.task = std::move(loaded.task);
  inputs.data_report = std::move(loaded.data_report);
  Fingerprint weights("weights/1");
  for (const NamedShape& tensor : inputs.base.layout.tensors) {
    weights.Add(tensor.name).Add(std::span<const float>(inputs.base.weights.at(tensor.name)));
  }
  inputs.base_checksum = weights.Hex();
  return conversion;
}

std::string Conversion::SparsifyFingerprint() const {
  const TrainOptions& o = inputs_.options.sparsify;
  return Fingerprint("sparsify/5")
      .Add(PenaltyName(o.penalty))
      .Add(inputs_.options.activation)
      .Add(inputs_.base_checksum)
      .Add(ConfigForFingerprint(inputs_.base.config))
      .Add(inputs_.task->training().Epoch(0))
      .Add(inputs_.task->check_rows())
      .Add(o.seed)
      .Add(uint64_t{o.workers})
      .Add(uint64_t{o.epochs})
      .Add(uint64_t{o.batch_size})
      .Add(o.learning_rate)
      .Add(o.weight_decay)
      .Add(o.warmup)
      .Add(o.clip_norm)
      .Add(o.alpha)
      .Add(o.alpha_ramp)
      .Add(o.final_rate)
      .Add(o.beta2)
      .Add(inputs_.options.dtype)
      .Hex();
}

absl::StatusOr<std::string> Conversion::SplitFingerprint() const {
  DIMMER_ASSIGN_OR_RETURN(const StageDir sparsified, Stage("sparsify"));
  DIMMER_ASSIGN_OR_RETURN(const std::string weights,
                          FileChecksum(sparsified.Path("model.safetensors")));
  return Fingerprint("split/2")
      .Add(weights)
      .Add(uint64_t{inputs_.options.route.experts})
      .Add(inputs_.options.sparsify.seed)
      .Hex();
}

absl::StatusOr<std::string> Conversion::RouteFingerprint() const {
  DIMMER_ASSIGN_OR_RETURN(const StageDir split, Stage("split"));
  DIMMER_ASSIGN_OR_RETURN(const std::string weights, FileChecksum(split.Path("model.safetensors")));
  const RouteOptions& o = inputs_.options.route;
  return Fingerprint("route/3")
      .Add(inputs_.options.activation)
      .Add(ConfigForFingerprint(inputs_.base.config))
      .Add(weights)
      .Add(inputs_.task->training_rows())
      .Add(inputs_.task->check_rows())
      .Add(o.seed)
      .Add(uint64_t{o.experts})
      .Add(uint64_t{o.width})
      .Add(uint64_t{o.epochs})
      .Add(uint64_t{o.refine_epochs})
      .Add(uint64_t{o.batch_tokens})
      .Add(o.learning_rate)
      .Add(o.max_tokens)
      .Hex();
}

absl::StatusOr<std::string> Conversion::CalibrateFingerprint() const {
  DIMMER_ASSIGN_OR_RETURN(const StageDir split, Stage("split"));
  DIMMER_ASSIGN_OR_RETURN(const StageDir routed, Stage("route"));
  DIMMER_ASSIGN_OR_RETURN(const std::string weights, FileChecksum(split.Path("model.safetensors")));
  DIMMER_ASSIGN_OR_RETURN(const std::string routers,
                          FileChecksum(routed.Path("routers.safetensors")));
  return Fingerprint("calibrate/3")
      .Add(inputs_.base_checksum)
      .Add(ConfigForFingerprint(inputs_.base.config))
      .Add(weights)
      .Add(routers)
      .Add(inputs_.task->calibration_rows())
      .Add(inputs_.task->test_rows())
      .Hex();
}

absl::StatusOr<nlohmann::json> Conversion::RequireBefore(const std::string& stage) const {
  using StageFingerprint = std::function<absl::StatusOr<std::string>()>;
  const std::pair<std::string, StageFingerprint> stages[] = {
      {"sparsify", [this] { return SparsifyFingerprint(); }},
      {"split", [this] { return SplitFingerprint(); }},
      {"route", [this] { return RouteFingerprint(); }},
      {"calibrate", [this] { return CalibrateFingerprint(); }}};
  nlohmann::json reports = nlohmann::json::object();
  for (const auto& [name, fingerprint_of] : stages) {
    if (name == stage) break;
    DIMMER_ASSIGN_OR_RETURN(const StageDir directory, Stage(name));
    DIMMER_ASSIGN_OR_RETURN(const std::string fingerprint, fingerprint_of());
    std::optional<nlohmann::json> report = directory.Done(fingerprint);
    if (!report.has_value()) {
      return absl::FailedPreconditionError(
          fmt::format("{}: this stage is not done for these options; do it with dimmer-convert {}, "
                      "or all stages with dimmer-convert run",
                      directory.directory(), name));
    }
    reports[name] = *std::move(report);
  }
  return reports;
}

absl::Status Conversion::Run() {
  DIMMER_RETURN_IF_ERROR(Sparsify());
  DIMMER_RETURN_IF_ERROR(Split());
  DIMMER_RETURN_IF_ERROR(Route());
  DIMMER_RETURN_IF_ERROR(Calibrate());
  return Pack();
}

}  // namespace dimmer
