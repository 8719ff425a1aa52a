#include "engine/package/package.h"

#include <openssl/evp.h>

#include <array>
#include <cstdio>
#include <filesystem>

#include "engine/package/json_fields.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

// Files whose checksums dimmer.json states; the last two where they exist.
constexpr const char* kChecked[] = {"model.safetensors", "routers.safetensors", "config.json",
                                    "vocab.txt", "tokenizer.json"};

absl::Status VerifyChecksums(const std::string& directory, const nlohmann::json& json,
                             const std::string& where) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, where));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields checksums, fields.Object("checksums"));
  for (const auto& [file, value] : checksums.json().items()) {
    if (file.find('/') != std::string::npos) {
      return absl::InvalidArgumentError(
          fmt::format("{}: checksums: found {}, expected names of files beside it", where, file));
    }
    DIMMER_ASSIGN_OR_RETURN(const std::string stated, checksums.String(file));
    DIMMER_ASSIGN_OR_RETURN(const std::string found, FileChecksum(directory + "/" + file));
    if (found != stated) {
      return absl::InvalidArgumentError(
          fmt::format("{}/{}: found checksum {}, dimmer.json states {}: the file was changed or is "
                      "damaged",
                      directory, file, found, stated));
    }
  }
  return absl::OkStatus();
}

// Routers must have the shapes that dimmer.json promises, with one width per package.
absl::Status CheckRouters(const SafetensorsFile& routers, const MoeSpec& moe) {
  for (const MoeModuleSpec& module : moe.modules) {
    for (const int which : {1, 2}) {
      const std::string name = RouterTensorName(module.layer, module.module, which);
      const TensorView* tensor = routers.Find(name);
      if (tensor == nullptr) {
        return absl::InvalidArgumentError(
            fmt::format("{}: tensor {}: missing", routers.path(), name));
      }
      const int64_t rows = which == 1 ? module.router_width : module.experts;
      const bool fits = tensor->shape.size() == 2 && tensor->shape[0] == rows &&
                        (which == 1 || tensor->shape[1] == module.router_width);
      if (!fits) {
        return absl::InvalidArgumentError(fmt::format(
            "{}: tensor {}: found shape {}, expected [{}, {}]", routers.path(), name,
            ShapeString(tensor->shape), rows,
            which == 1 ? std::string("model width") : std::to_string(module.router_width)));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadArchitecture(const nlohmann::json& config,
                                             const std::string& where) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(config, where));
  const auto it = fields.json().find("architectures");
  if (it == fields.json().end() || !it->is_array() || it->size() != 1 || !(*it)[0].is_string()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: architectures: found {}, expected one name such as "
                    "[\"BertForSequenceClassification\"]",
                    where, it == fields.json().end() ? "nothing" : it->dump().substr(0, 60)));
  }
  return (*it)[0].get<std::string>();
}

}  // namespace

absl::StatusOr<Package> Package::Open(const std::string& directory) {
  Package package;
  package.directory = directory;
  const std::string config_path = directory + "/config.json";
  DIMMER_ASSIGN_OR_RETURN(const std::string config, ReadTextFile(config_path, 4u << 20));
  DIMMER_ASSIGN_OR_RETURN(package.config, ParseJson(config, config_path));
  DIMMER_ASSIGN_OR_RETURN(package.architecture, ReadArchitecture(package.config, config_path));

  const std::string spec_path = directory + "/dimmer.json";
  std::error_code error;
  if (std::filesystem::exists(spec_path, error)) {
    DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(spec_path, 16u << 20));
    DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, spec_path));
    DIMMER_ASSIGN_OR_RETURN(package.moe, MoeSpecFromJson(json, spec_path));
    DIMMER_ASSIGN_OR_RETURN(package.routers,
                            SafetensorsFile::Open(directory + "/routers.safetensors"));
    DIMMER_RETURN_IF_ERROR(CheckRouters(*package.routers, *package.moe));
    DIMMER_RETURN_IF_ERROR(VerifyChecksums(directory, json, spec_path));
  }
  DIMMER_ASSIGN_OR_RETURN(package.weights, Weights::Open(directory));
  return package;
}

std::string RouterTensorName(uint32_t layer, Module module, int which) {
  return fmt::format("layers.{}.{}.router.w{}", layer, ModuleName(module), which);
}

absl::StatusOr<std::string> FileChecksum(const std::string& path) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                       &std::fclose);
  if (file == nullptr) return absl::NotFoundError(fmt::format("{}: can't be opened", path));
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  std::vector<unsigned char> buffer(1 << 20);
  size_t n;
  while ((n = std::fread(buffer.data(), 1, buffer.size(), file.get())) > 0) {
    EVP_DigestUpdate(context.get(), buffer.data(), n);
  }
  if (std::ferror(file.get()))
    return absl::InvalidArgumentError(fmt::format("{}: read failed", path));
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int length = 0;
  EVP_DigestFinal_ex(context.get(), digest.data(), &length);
  return fmt::format("sha256:{:02x}", fmt::join(digest.begin(), digest.begin() + length, ""));
}

absl::Status WriteMoeSpec(const std::string& directory, const MoeSpec& spec) {
  nlohmann::json json = ToJson(spec);
  nlohmann::json checksums = nlohmann::json::object();
  std::error_code error;
  for (const char* name : kChecked) {
    const std::string path = directory + "/" + name;
    if (!std::filesystem::exists(path, error)) continue;
    DIMMER_ASSIGN_OR_RETURN(checksums[name], FileChecksum(path));
  }
  json["checksums"] = std::move(checksums);
  return WriteTextFile(directory + "/dimmer.json", json.dump(1) + "\n");
}

}  // namespace dimmer
