#include "engine/package/package.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "engine/package/json_fields.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

constexpr std::string_view kConfig = "config.json";
constexpr std::string_view kSpec = "dimmer.json";
constexpr std::string_view kRouters = "routers.safetensors";
// Besides every *.safetensors. Whatever else lies there (a model card) may change.
constexpr std::array<std::string_view, 12> kChecked = {kConfig,
                                                       "generation_config.json",
                                                       "model.safetensors.index.json",
                                                       "tokenizer.json",
                                                       "tokenizer_config.json",
                                                       "special_tokens_map.json",
                                                       "vocab.txt",
                                                       "vocab.json",
                                                       "merges.txt",
                                                       "added_tokens.json",
                                                       "encoder.json",
                                                       "vocab.bpe"};

std::string Join(const std::string& directory, std::string_view name) {
  return fmt::format("{}/{}", directory, name);
}

absl::StatusOr<nlohmann::json> ReadJson(const std::string& path) {
  DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  return ParseJson(text, path);
}

absl::StatusOr<std::string> Architecture(const nlohmann::json& config, const std::string& path) {
  constexpr std::string_view kExpected =
      "a list with the model's class, e.g. [\"BertForSequenceClassification\"]";
  DIMMER_RETURN_IF_ERROR(JsonFields::Of(config, path).status());
  const auto it = config.find("architectures");
  if (it != config.end() && it->is_array() && !it->empty() && it->front().is_string()) {
    return it->front().get<std::string>();
  }
  return absl::InvalidArgumentError(fmt::format("{}: architectures: found {}, expected {}", path,
                                                it == config.end() ? "nothing" : it->type_name(),
                                                kExpected));
}

// A name in "checksums" is a file of the package, nothing else.
bool IsPlainName(std::string_view name) {
  return !name.empty() && name[0] != '.' &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

absl::Status VerifyChecksums(const JsonFields& spec, const std::string& directory,
                             const Weights& weights) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields sums, spec.Object("checksums"));
  std::vector<std::string> required = weights.files();
  required.push_back(Join(directory, kRouters));
  for (const std::string& path : required) {
    DIMMER_RETURN_IF_ERROR(sums.String(path.substr(path.rfind('/') + 1)).status());
  }
  for (const auto& item : sums.json().items()) {
    if (!IsPlainName(item.key())) {
      return absl::InvalidArgumentError(
          fmt::format("{}: found \"{:.80}\", expected names of files in the package", sums.where(),
                      item.key()));
    }
    DIMMER_ASSIGN_OR_RETURN(const std::string stated, sums.String(item.key()));
    const std::string path = Join(directory, item.key());
    DIMMER_ASSIGN_OR_RETURN(const std::string found, FileChecksum(path));
    if (found != stated) {
      return absl::InvalidArgumentError(
          fmt::format("{}: found checksum {}, expected {:.100} as {} says (a file was changed or "
                      "damaged after the package was written)",
                      path, found, stated, kSpec));
    }
  }
  return absl::OkStatus();
}

// One router matrix: a float tensor of `rows`, and of `columns` unless that is 0 (not known here).
absl::StatusOr<int64_t> CheckRouter(const SafetensorsFile& file, const std::string& name,
                                    int64_t rows, int64_t columns) {
  const std::string expected =
      fmt::format("[{}, {}]", rows, columns == 0 ? "width" : fmt::format("{}", columns));
  const TensorView* view = file.Find(name);
  if (view == nullptr) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: tensor {}: found nothing, expected it with shape {}", file.path(), name, expected));
  }
  if (view->shape.size() != 2 || view->shape[0] != rows || view->shape[1] < 1 ||
      (columns != 0 && view->shape[1] != columns)) {
    return absl::InvalidArgumentError(fmt::format("{}: tensor {}: found shape {}, expected {}",
                                                  file.path(), name, ShapeString(view->shape),
                                                  expected));
  }
  if (!IsFloat(view->dtype)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: tensor {}: found {}, expected F32, F16 or BF16", file.path(), name,
                    DTypeName(view->dtype)));
  }
  return view->shape[1];
}

absl::Status CheckRouters(const SafetensorsFile& file, const MoeSpec& spec) {
  int64_t width = 0;  // of the model: that of the first router
  for (const MoeModuleSpec& module : spec.modules) {
    DIMMER_ASSIGN_OR_RETURN(width,
                            CheckRouter(file, RouterTensorName(module.layer, module.module, 1),
                                        module.router_width, width));
    DIMMER_RETURN_IF_ERROR(CheckRouter(file, RouterTensorName(module.layer, module.module, 2),
                                       module.experts, module.router_width)
                               .status());
  }
  if (file.tensors().size() == 2 * spec.modules.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: found {} tensors, expected {}, two per module of {}", file.path(),
                  file.tensors().size(), 2 * spec.modules.size(), kSpec));
}

bool IsChecked(const std::string& name) {
  return (name.ends_with(".safetensors") && IsPlainName(name)) ||
         std::find(kChecked.begin(), kChecked.end(), name) != kChecked.end();
}

}  // namespace

absl::StatusOr<Package> Package::Open(const std::string& directory) {
  Package package;
  package.directory = directory;
  const std::string config_path = Join(directory, kConfig);
  DIMMER_ASSIGN_OR_RETURN(package.config, ReadJson(config_path));
  DIMMER_ASSIGN_OR_RETURN(package.architecture, Architecture(package.config, config_path));

  const std::string spec_path = Join(directory, kSpec);
  nlohmann::json spec;
  if (Exists(spec_path)) {
    // Before the weights: of a newer format nothing else can be judged.
    DIMMER_ASSIGN_OR_RETURN(spec, ReadJson(spec_path));
    DIMMER_ASSIGN_OR_RETURN(package.moe, MoeSpecFromJson(spec, spec_path));
  }
  DIMMER_ASSIGN_OR_RETURN(package.weights, Weights::Open(directory));
  if (!package.moe) return package;

  DIMMER_ASSIGN_OR_RETURN(package.routers, SafetensorsFile::Open(Join(directory, kRouters)));
  DIMMER_RETURN_IF_ERROR(CheckRouters(*package.routers, *package.moe));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(spec, spec_path));
  DIMMER_RETURN_IF_ERROR(VerifyChecksums(fields, directory, package.weights));
  return package;
}

absl::Status WriteMoeSpec(const std::string& directory, const MoeSpec& spec) {
  nlohmann::json json = ToJson(spec);
  nlohmann::json sums = nlohmann::json::object();
  std::error_code error;
  std::filesystem::directory_iterator files(directory, error);
  for (; !error && files != std::filesystem::directory_iterator(); files.increment(error)) {
    const std::string name = files->path().filename().string();
    if (!IsChecked(name)) continue;
    DIMMER_ASSIGN_OR_RETURN(sums[name], FileChecksum(Join(directory, name)));
  }
  if (error)
    return absl::ErrnoToStatus(error.value(), fmt::format("{}: can't be listed", directory));
  json["checksums"] = std::move(sums);
  const std::string path = Join(directory, kSpec);
  // What could not be read back is not written.
  DIMMER_RETURN_IF_ERROR(MoeSpecFromJson(json, path).status());
  std::string text;
  try {
    text = json.dump(1);
  } catch (const nlohmann::json::exception& failure) {  // a string that is not UTF-8
    return absl::InvalidArgumentError(fmt::format("{}: {}", path, failure.what()));
  }
  return WriteTextFile(path, text + "\n");
}

}  // namespace dimmer
