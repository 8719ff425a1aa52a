// Conversion::Create and the bookkeeping between stages.
#include <algorithm>
#include <filesystem>
#include <functional>
#include <utility>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/text/tokenizer.h"
#include "engine/util/status.h"
#include "training/conversion.h"
#include "training/fingerprint.h"
#include "training/measure.h"
#include "training/package_target.h"

namespace dimmer {
namespace {

constexpr uint64_t kMaxNotesBytes = 1 << 20;

std::string FileName(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

// Rows, labels and what is to be said about them in the package.
struct LoadedData {
  Split split;
  std::vector<std::string> labels;
  std::string label_counts;
  nlohmann::json report;
};

absl::StatusOr<LoadedData> LoadData(const ConvertOptions& options) {
  DIMMER_ASSIGN_OR_RETURN(const DataFormat format, ParseDataFormat(options.format));
  DIMMER_ASSIGN_OR_RETURN(std::vector<TextRow> rows, ReadRows(options.data, format));
  DIMMER_RETURN_IF_ERROR(CheckFirstLabel(rows, options.data));
  DIMMER_ASSIGN_OR_RETURN(const std::string checksum, FileChecksum(options.data));
  LoadedData loaded;
  loaded.report = {{"file", FileName(options.data)}, {"checksum", checksum}, {"rows", rows.size()}};
  std::vector<TextRow> excluded;
  if (!options.exclude.empty()) {
    DIMMER_ASSIGN_OR_RETURN(excluded, ReadRows(options.exclude, format));
    DIMMER_ASSIGN_OR_RETURN(const std::string sum, FileChecksum(options.exclude));
    loaded.report["excluded_file"] = {{"file", FileName(options.exclude)}, {"checksum", sum}};
  }
  const Cleaned cleaned = CleanRows(rows, excluded);
  loaded.report["dropped"] = {{"duplicates", cleaned.duplicates},
                              {"conflicting_labels", cleaned.conflicting},
                              {"in_excluded_file", cleaned.excluded}};
  if (cleaned.rows.empty()) {
    return absl::InvalidArgumentError(fmt::format("{}: no rows are left", options.data));
  }
  loaded.labels = LabelsOf(cleaned.rows);
  loaded.label_counts = LabelCounts(cleaned.rows);
  if (loaded.labels.size() < 2) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: found one label, \"{}\", expected two or more", options.data, loaded.labels.front()));
  }
  DIMMER_ASSIGN_OR_RETURN(loaded.split,
                          SplitRows(cleaned.rows, options.calibration_rows, options.sparsify.seed));
  loaded.report["training_rows"] = loaded.split.training.size();
  loaded.report["calibration_rows"] = loaded.split.calibration.size();
  return loaded;
}

// Heads, norm epsilon, activation and whatever else config.json says of the model: all but where it
// was saved from and with what.
std::string ConfigForFingerprint(nlohmann::json config) {
  config.erase("_name_or_path");
  config.erase("transformers_version");
  return config.dump();
}

uint64_t Tokens(std::span<const Example> examples) {
  uint64_t tokens = 0;
  for (const Example& example : examples) tokens += example.ids.size();
  return tokens;
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
  DIMMER_ASSIGN_OR_RETURN(LoadedData data, LoadData(options));
  inputs.labels = std::move(data.labels);
  inputs.data_report = std::move(data.report);
  DIMMER_ASSIGN_OR_RETURN(inputs.base,
                          LoadBaseModel(options.checkpoint, inputs.labels, options.sparsify.seed));
  if (inputs.base.shape.hidden % options.route.experts != 0) {
    return absl::InvalidArgumentError(
        fmt::format("--experts: found {}, expected a divisor of intermediate_size {}",
                    options.route.experts, inputs.base.shape.hidden));
  }
  DIMMER_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(options.checkpoint));
  if (static_cast<int64_t>(tokenizer->vocab_size()) > inputs.base.shape.vocab) {
    return absl::InvalidArgumentError(
        fmt::format("{}: the tokenizer has {} tokens, config.json's vocab_size is {}",
                    options.checkpoint, tokenizer->vocab_size(), inputs.base.shape.vocab));
  }
  const auto max_tokens =
      static_cast<uint32_t>(std::min<int64_t>(options.max_tokens, inputs.base.shape.positions));
  DIMMER_ASSIGN_OR_RETURN(inputs.training,
                          Tokenize(*tokenizer, data.split.training, inputs.labels, max_tokens));
  DIMMER_ASSIGN_OR_RETURN(inputs.calibration,
                          Tokenize(*tokenizer, data.split.calibration, inputs.labels, max_tokens));
  const auto shortest = std::min_element(
      inputs.training.begin(), inputs.training.end(),
      [](const Example& a, const Example& b) { return a.ids.size() < b.ids.size(); });
  if (options.route.max_tokens < shortest->ids.size()) {
    return absl::InvalidArgumentError(
        fmt::format("--router-tokens: found {}, expected at least {}, the tokens of the shortest "
                    "training row",
                    options.route.max_tokens, shortest->ids.size()));
  }
  inputs.data_report["training_tokens"] = Tokens(inputs.training);
  inputs.data_report["calibration_tokens"] = Tokens(inputs.calibration);
  Fingerprint weights("weights/1");
  for (const NamedShape& tensor : BertTensors(inputs.base.shape)) {
    weights.Add(tensor.name).Add(std::span<const float>(inputs.base.weights.at(tensor.name)));
  }
  inputs.base_checksum = weights.Hex();
  const nlohmann::json& dropped = inputs.data_report["dropped"];
  progress.Note(fmt::format(
      "{}: {} rows; dropped {} duplicates, {} with conflicting labels, {} of the excluded file; "
      "{} for training ({} tokens), {} for calibration; labels: {}",
      inputs.data_report["file"].get<std::string>(), inputs.data_report["rows"].get<uint64_t>(),
      dropped["duplicates"].get<uint64_t>(), dropped["conflicting_labels"].get<uint64_t>(),
      dropped["in_excluded_file"].get<uint64_t>(), inputs.training.size(), Tokens(inputs.training),
      inputs.calibration.size(), data.label_counts));
  return conversion;
}

std::string Conversion::SparsifyFingerprint() const {
  const SparsifyOptions& o = inputs_.options.sparsify;
  return Fingerprint("sparsify/2")
      .Add(inputs_.base_checksum)
      .Add(ConfigForFingerprint(inputs_.base.config))
      .Add(std::span<const Example>(inputs_.training))
      .Add(std::span<const Example>(inputs_.calibration))
      .Add(o.seed)
      .Add(uint64_t{o.workers})
      .Add(uint64_t{o.epochs})
      .Add(uint64_t{o.batch_size})
      .Add(o.learning_rate)
      .Add(o.weight_decay)
      .Add(o.warmup)
      .Add(o.clip_norm)
      .Add(o.hoyer)
      .Add(o.hoyer_ramp)
      .Add(inputs_.base.shape.dropout)
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
  return Fingerprint("route/2")
      .Add(ConfigForFingerprint(inputs_.base.config))
      .Add(weights)
      .Add(std::span<const Example>(inputs_.training))
      .Add(std::span<const Example>(inputs_.calibration))
      .Add(o.seed)
      .Add(uint64_t{o.experts})
      .Add(uint64_t{o.width})
      .Add(uint64_t{o.epochs})
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
  return Fingerprint("calibrate/2")
      .Add(ConfigForFingerprint(inputs_.base.config))
      .Add(weights)
      .Add(routers)
      .Add(std::span<const Example>(inputs_.calibration))
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
