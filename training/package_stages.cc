// The stages without libtorch: split, calibrate and pack.
#include <absl/cleanup/cleanup.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"
#include "training/checkpoint_files.h"
#include "training/conversion.h"
#include "training/package_target.h"
#include "training/provenance.h"
#include "training/runtime.h"
#include "training/split.h"

namespace dimmer {
namespace {

namespace fs = std::filesystem;

MoeSpec SpecWithoutCalibration(const ConversionInputs& inputs) {
  MoeSpec spec;
  for (int64_t layer = 0; layer < inputs.base.layout.layers(); ++layer) {
    spec.modules.push_back({.layer = static_cast<uint32_t>(layer),
                            .module = Module::kFfn,
                            .experts = inputs.options.route.experts,
                            .expert_size = static_cast<uint32_t>(inputs.base.layout.hidden) /
                                           inputs.options.route.experts,
                            .router_width = inputs.options.route.width});
  }
  return spec;
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
  const ModelLayout& layout = inputs_.base.layout;
  const ConvertOptions& options = inputs_.options;
  DIMMER_ASSIGN_OR_RETURN(const StageDir sparsified, Stage("sparsify"));
  DIMMER_ASSIGN_OR_RETURN(WeightMap weights,
                          LoadWeights(sparsified.Path("model.safetensors"), layout));
  progress_.Start("split", "layers", layout.layers());
  DIMMER_ASSIGN_OR_RETURN(const SplitReport report,
                          SplitIntoExperts(layout, options.route.experts, options.sparsify.seed,
                                           options.sparsify.workers, weights, [&](int64_t) {
                                             progress_.Advance("balanced k-means");
                                           }));
  progress_.Finish();
  // The values are those read: they are rounded already.
  DIMMER_RETURN_IF_ERROR(
      SaveWeights(stage.Path("model.safetensors"), layout, weights, options.weight_dtype()));
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
  const fs::path checkpoint = inputs_.options.checkpoint;
  DIMMER_RETURN_IF_ERROR(CopyTokenizer(checkpoint, target));
  const char* const ends = "generation_config.json";  // the tokens that end a text
  if (fs::exists(checkpoint / ends)) {
    DIMMER_RETURN_IF_ERROR(CopyFile(checkpoint / ends, target / ends));
  }
  return WriteTextFile(target / "config.json",
                       inputs_.task->PackageConfig(inputs_.base, inputs_.options).dump(2) + "\n");
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
  DIMMER_ASSIGN_OR_RETURN(nlohmann::json report,
                          inputs_.task->Measure(candidate, inputs_.options, progress_));
  report["made_on"] = Surroundings();
  return stage.MarkDone(fingerprint, {}, report);
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

  const nlohmann::json& sweep = reports.at("calibrate");
  CalibrationResult result = inputs_.task->Conclude(sweep, options);
  MoeSpec spec = SpecWithoutCalibration(inputs_);
  spec.calibration = std::move(result.calibration);
  spec.gate.default_tau = result.default_tau;
  DIMMER_ASSIGN_OR_RETURN(spec.provenance, MakeProvenance(inputs_, reports));

  const PackageFacts facts{
      .title = options.name.empty() ? target.parent_path().filename().string() : options.name,
      .notes = inputs_.notes,
      .spec = &spec,
      .sweep = &sweep};
  DIMMER_RETURN_IF_ERROR(WriteTextFile(fresh / "tradeoff.svg", inputs_.task->Plot(facts)));
  DIMMER_RETURN_IF_ERROR(WriteTextFile(fresh / "README.md", inputs_.task->Card(facts, options)));
  DIMMER_RETURN_IF_ERROR(WriteMoeSpec(fresh, spec));
  DIMMER_RETURN_IF_ERROR(Package::Open(fresh).status());  // what is handed over can be opened
  DIMMER_RETURN_IF_ERROR(ReplacePackage(fresh, target));
  progress_.Note(
      fmt::format("pack: {} is ready; default tau {:g}", target.string(), spec.gate.default_tau));
  return absl::OkStatus();
}

}  // namespace dimmer
