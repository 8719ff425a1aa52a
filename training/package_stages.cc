// The stages without libtorch: split, calibrate and pack.
#include <absl/cleanup/cleanup.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <thread>

#include "engine/models/model.h"
#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"
#include "training/conversion.h"
#include "training/measure.h"
#include "training/model_card.h"
#include "training/package_target.h"
#include "training/provenance.h"
#include "training/runtime.h"
#include "training/split.h"
#include "training/tradeoff_plot.h"

namespace dimmer {
namespace {

namespace fs = std::filesystem;

constexpr double kPlottedShare = 0.99;

// Files of a checkpoint that a tokenizer is made of; vocab.txt makes tokenizer.json redundant.
std::vector<std::string> TokenizerFiles(const std::string& checkpoint) {
  std::vector<std::string> files;
  for (const char* name : {"vocab.txt", "tokenizer_config.json", "special_tokens_map.json"}) {
    if (fs::exists(fs::path(checkpoint) / name)) files.emplace_back(name);
  }
  if (!fs::exists(fs::path(checkpoint) / "vocab.txt")) files.emplace_back("tokenizer.json");
  return files;
}

absl::Status CopyFile(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
  if (!error) return absl::OkStatus();
  fs::remove(to, error);
  return absl::UnavailableError(fmt::format("copying {} to {} failed: disk full or not writable?",
                                            from.string(), to.string()));
}

// config.json of the dense ReLU classifier, as `transformers` reads it.
nlohmann::json PackageConfig(const ConversionInputs& inputs) {
  nlohmann::json config = inputs.base.config;
  config.erase("_name_or_path");
  config["architectures"] = {"BertForSequenceClassification"};
  config["hidden_act"] = "relu";
  config["problem_type"] = "single_label_classification";
  config["torch_dtype"] = inputs.options.dtype == "f32" ? "float32" : "float16";
  config["id2label"] = nlohmann::json::object();
  config["label2id"] = nlohmann::json::object();
  for (size_t i = 0; i < inputs.labels.size(); ++i) {
    config["id2label"][std::to_string(i)] = inputs.labels[i];
    config["label2id"][inputs.labels[i]] = i;
  }
  return config;
}

MoeSpec SpecWithoutCalibration(const ConversionInputs& inputs) {
  MoeSpec spec;
  for (int64_t layer = 0; layer < inputs.base.shape.layers; ++layer) {
    spec.modules.push_back({.layer = static_cast<uint32_t>(layer),
                            .module = Module::kFfn,
                            .experts = inputs.options.route.experts,
                            .expert_size = static_cast<uint32_t>(inputs.base.shape.hidden) /
                                           inputs.options.route.experts,
                            .router_width = inputs.options.route.width});
  }
  return spec;
}

nlohmann::json ToJson(const SweepPoint& point) {
  std::string correct;  // one character per row keeps the file small and exact
  for (bool right : point.correct) correct += right ? '1' : '0';
  return {{"tau", point.tau},
          {"flops", point.flops},
          {"dense_flops", point.dense_flops},
          {"experts_run", point.experts_run},
          {"correct", correct}};
}

SweepPoint SweepPointFromJson(const nlohmann::json& json) {
  SweepPoint point;
  point.tau = json.at("tau");
  point.flops = json.at("flops");
  point.dense_flops = json.at("dense_flops");
  point.experts_run = json.at("experts_run").get<std::vector<double>>();
  for (char c : json.at("correct").get<std::string>()) point.correct.push_back(c == '1');
  return point;
}

}  // namespace

absl::Status Conversion::Split() {
  DIMMER_RETURN_IF_ERROR(RequireBefore("split").status());
  DIMMER_ASSIGN_OR_RETURN(const StageDir stage, Stage("split"));
  DIMMER_ASSIGN_OR_RETURN(const std::string fingerprint, SplitFingerprint());
  if (stage.Done(fingerprint).has_value()) {
    progress_.Note("split: done before");
    return absl::OkStatus();
  }
  const BertShape& shape = inputs_.base.shape;
  const ConvertOptions& options = inputs_.options;
  DIMMER_ASSIGN_OR_RETURN(const StageDir sparsified, Stage("sparsify"));
  DIMMER_ASSIGN_OR_RETURN(WeightMap weights,
                          LoadWeights(sparsified.Path("model.safetensors"), shape));
  progress_.Start("split", "layers", shape.layers);
  DIMMER_ASSIGN_OR_RETURN(const SplitReport report,
                          SplitIntoExperts(shape, options.route.experts, options.sparsify.seed,
                                           options.sparsify.workers, weights, [&](int64_t) {
                                             progress_.Advance("balanced k-means");
                                           }));
  progress_.Finish();
  // The values are those read: they are rounded already.
  DIMMER_RETURN_IF_ERROR(
      SaveWeights(stage.Path("model.safetensors"), shape, weights, options.weight_dtype()));
  return stage.MarkDone(fingerprint, {"model.safetensors"},
                        {{"inertia", report.inertia},
                         {"unsorted_inertia", report.baseline},
                         {"made_on", Surroundings()}});
}

absl::Status Conversion::WriteCandidate(const std::string& directory) const {
  std::error_code error;
  fs::remove_all(directory, error);
  fs::create_directories(directory, error);
  if (error) {
    return absl::UnavailableError(
        fmt::format("{}: cannot create this folder: {}", directory, error.message()));
  }
  DIMMER_ASSIGN_OR_RETURN(const StageDir split, Stage("split"));
  DIMMER_ASSIGN_OR_RETURN(const StageDir routed, Stage("route"));
  const fs::path target = directory;
  DIMMER_RETURN_IF_ERROR(CopyFile(split.Path("model.safetensors"), target / "model.safetensors"));
  DIMMER_RETURN_IF_ERROR(
      CopyFile(routed.Path("routers.safetensors"), target / "routers.safetensors"));
  for (const std::string& file : TokenizerFiles(inputs_.options.checkpoint)) {
    DIMMER_RETURN_IF_ERROR(CopyFile(fs::path(inputs_.options.checkpoint) / file, target / file));
  }
  return WriteTextFile(target / "config.json", PackageConfig(inputs_).dump(2) + "\n");
}

absl::Status Conversion::Calibrate() {
  DIMMER_RETURN_IF_ERROR(RequireBefore("calibrate").status());
  DIMMER_ASSIGN_OR_RETURN(const StageDir stage, Stage("calibrate"));
  DIMMER_ASSIGN_OR_RETURN(const std::string fingerprint, CalibrateFingerprint());
  if (stage.Done(fingerprint).has_value()) {
    progress_.Note("calibrate: done before");
    return absl::OkStatus();
  }
  // A complete package, as the server would load it, only without a calibration.
  const std::string candidate = stage.Path("package");
  DIMMER_RETURN_IF_ERROR(WriteCandidate(candidate));
  DIMMER_RETURN_IF_ERROR(WriteMoeSpec(candidate, SpecWithoutCalibration(inputs_)));
  std::unique_ptr<Model> model;
  {
    DIMMER_ASSIGN_OR_RETURN(const Package package, Package::Open(candidate));
    DIMMER_ASSIGN_OR_RETURN(model, LoadModel(package));
  }
  const std::vector<double> taus = DefaultTaus();
  progress_.Start("calibrate", "taus", taus.size());
  DIMMER_ASSIGN_OR_RETURN(
      const std::vector<SweepPoint> sweep,
      MeasureSweep(*model, inputs_.calibration, taus, inputs_.options.sparsify.workers,
                   [&](const SweepPoint& point) {
                     progress_.Advance(fmt::format("tau {:g}: {:.1f}% of FLOPs, accuracy {:.2f}%",
                                                   point.tau, 100 * point.flop_fraction(),
                                                   100 * point.accuracy().value));
                   }));
  progress_.Finish();
  nlohmann::json points = nlohmann::json::array();
  for (const SweepPoint& point : sweep) points.push_back(ToJson(point));
  return stage.MarkDone(fingerprint, {}, {{"points", points}, {"made_on", Surroundings()}});
}

absl::Status Conversion::Pack() {
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json reports, RequireBefore("pack"));
  const ConvertOptions& options = inputs_.options;
  const fs::path target = PackageTarget(options.to);
  const fs::path fresh = PartialPath(target);
  const absl::Cleanup remove_fresh = [&] {  // nothing is left of it after success
    std::error_code ignored;
    fs::remove_all(fresh, ignored);
  };
  DIMMER_RETURN_IF_ERROR(WriteCandidate(fresh));

  std::vector<SweepPoint> sweep;
  for (const nlohmann::json& point : reports.at("calibrate").at("points")) {
    sweep.push_back(SweepPointFromJson(point));
  }
  MoeSpec spec = SpecWithoutCalibration(inputs_);
  spec.calibration =
      CalibrationFrom(sweep, inputs_.data_report.at("calibration_tokens").get<uint64_t>());
  spec.gate.default_tau = sweep[LastPointKeeping(sweep, options.keep_quality)].tau;
  DIMMER_ASSIGN_OR_RETURN(spec.provenance, MakeProvenance(inputs_, reports));

  const std::string name =
      options.name.empty() ? target.parent_path().filename().string() : options.name;
  const TradeoffPlot plot{
      .title = fmt::format("{}: accuracy against compute", name),
      .subtitle = fmt::format("{} calibration rows; one point per tau, band: 95% interval",
                              spec.calibration.rows),
      .calibration = spec.calibration,
      .reference = kPlottedShare,
      .reference_point = LastPointKeeping(sweep, kPlottedShare),
      .default_tau = spec.gate.default_tau};
  DIMMER_RETURN_IF_ERROR(WriteTextFile(fresh / "tradeoff.svg", RenderSvg(plot)));
  DIMMER_RETURN_IF_ERROR(
      WriteTextFile(fresh / "README.md", RenderModelCard({.title = name,
                                                          .notes = inputs_.notes,
                                                          .labels = inputs_.labels,
                                                          .spec = &spec,
                                                          .sweep = &sweep,
                                                          .keep_quality = options.keep_quality})));
  DIMMER_RETURN_IF_ERROR(WriteMoeSpec(fresh, spec));
  DIMMER_RETURN_IF_ERROR(Package::Open(fresh).status());  // what is handed over can be opened
  DIMMER_RETURN_IF_ERROR(ReplacePackage(fresh, target));
  progress_.Note(
      fmt::format("pack: {} is ready; default tau {:g}", target.string(), spec.gate.default_tau));
  return absl::OkStatus();
}

}  // namespace dimmer
