#include "training/provenance.h"

#include <filesystem>

#include "engine/package/package.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

// Name and checksum of the checkpoint's weights, one file or several.
absl::StatusOr<nlohmann::json> WeightFiles(const std::string& checkpoint) {
  nlohmann::json files = nlohmann::json::object();
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint)) {
    if (entry.path().extension() != ".safetensors") continue;
    DIMMER_ASSIGN_OR_RETURN(files[entry.path().filename().string()],
                            FileChecksum(entry.path().string()));
  }
  return files;
}

// Where each stage was computed, by name: they may come from several machines.
nlohmann::json StagesMadeOn(const nlohmann::json& reports) {
  nlohmann::json stages = nlohmann::json::object();
  for (const auto& [stage, report] : reports.items()) stages[stage] = report.at("made_on");
  return stages;
}

nlohmann::json WithoutMadeOn(nlohmann::json report) {
  report.erase("made_on");
  return report;
}

}  // namespace

absl::StatusOr<nlohmann::json> MakeProvenance(const ConversionInputs& inputs,
                                              const nlohmann::json& reports) {
  const ConvertOptions& options = inputs.options;
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json files, WeightFiles(options.checkpoint));
  nlohmann::json base = {{"name", BaseName(options.checkpoint)},
                         {"files", files},
                         {"architecture", inputs.base.config.at("architectures").at(0)}};
  base.update(inputs.task->BaseFacts(inputs.base));
  if (inputs.base.config.contains("_name_or_path")) {
    base["derived_from"] = inputs.base.config["_name_or_path"];
  }
  const nlohmann::json& trained = reports.at("sparsify").at("made_on");
  const std::string environment = trained.at("environment");
  return nlohmann::json{
      {"tool", "dimmer-convert " DIMMER_VERSION},
      {"command", (environment.empty() ? "" : environment + " ") + CommandLine(options)},
      {"seed", options.sparsify.seed},
      {"base", base},
      {"data", inputs.data_report},
      {"training", reports.at("sparsify").at("epochs")},
      {"split", WithoutMadeOn(reports.at("split"))},
      {"routers", WithoutMadeOn(reports.at("route"))},
      {"keep_quality", options.keep_quality},
      {"libraries", trained.at("libraries")},
      {"machine", trained.at("machine")},
      {"stages_made_on", StagesMadeOn(reports)}};
}

}  // namespace dimmer
