#include "training/provenance.h"

#include <filesystem>
#include <fstream>

#include "engine/package/package.h"
#include "engine/util/status.h"
#include "training/runtime.h"

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

std::string CheckpointName(const std::string& checkpoint) {
  std::filesystem::path path = std::filesystem::path(checkpoint).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

}  // namespace

std::string MachineType() {
  std::ifstream info("/proc/cpuinfo");
  std::string name = "unknown processor";
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      name = line.substr(colon + 2);
      break;
    }
  }
  return fmt::format("{} ({})", name, WidestInstructionSet());
}

absl::StatusOr<nlohmann::json> MakeProvenance(const ConversionInputs& inputs,
                                              const nlohmann::json& reports) {
  const ConvertOptions& options = inputs.options;
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json files, WeightFiles(options.checkpoint));
  nlohmann::json base = {{"name", CheckpointName(options.checkpoint)},
                         {"files", files},
                         {"architecture", inputs.base.config.at("architectures").at(0)},
                         {"hidden_act", inputs.base.config.value("hidden_act", "gelu")},
                         {"fresh_pooler", inputs.base.fresh_pooler},
                         {"fresh_classifier", inputs.base.fresh_classifier}};
  if (inputs.base.config.contains("_name_or_path")) {
    base["derived_from"] = inputs.base.config["_name_or_path"];
  }
  return nlohmann::json{{"tool", "dimmer-convert " DIMMER_VERSION},
                        {"command", CommandLine(options)},
                        {"seed", options.sparsify.seed},
                        {"base", base},
                        {"data", inputs.data_report},
                        {"training", reports.at("sparsify").at("epochs")},
                        {"split", reports.at("split")},
                        {"routers", reports.at("route")},
                        {"keep_quality", options.keep_quality},
                        {"libraries", LibraryVersions()},
                        {"machine", MachineType()}};
}

}  // namespace dimmer
