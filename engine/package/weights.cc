#include <fmt/format.h>

#include <filesystem>
#include <set>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

constexpr std::string_view kSingle = "model.safetensors";
constexpr std::string_view kIndex = "model.safetensors.index.json";

// What to say where neither exists.
absl::Status NoWeights(const std::string& directory) {
  for (const char* other : {"pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5",
                            "flax_model.msgpack", "model.onnx"}) {
    if (!Exists(fmt::format("{}/{}", directory, other))) continue;
    return absl::InvalidArgumentError(fmt::format(
        "{0}: found {1}, expected {2}: only safetensors is read. Convert with transformers: "
        "AutoModel.from_pretrained(\"{0}\").save_pretrained(\"{0}\", safe_serialization=True), "
        "with the class that config.json names in place of AutoModel",
        directory, other, kSingle));
  }
  return absl::NotFoundError(
      fmt::format("{}: found no weights, expected {} or {}", directory, kSingle, kIndex));
}

// The files that the index names, each once. A name is a file beside the index, nothing else.
absl::StatusOr<std::set<std::string>> ShardNames(const JsonFields& map) {
  std::set<std::string> names;
  for (const auto& item : map.json().items()) {
    DIMMER_ASSIGN_OR_RETURN(const std::string name, map.String(item.key()));
    if (name.empty() || name[0] == '.' || name.find_first_of("/\\") != std::string::npos ||
        name.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(
          fmt::format("{}: {}: found \"{:.80}\", expected the name of a file in the same directory",
                      map.where(), item.key(), name));
    }
    names.insert(name);
  }
  return names;
}

}  // namespace

absl::StatusOr<Weights> Weights::Open(const std::string& directory) {
  Weights weights;
  const std::string single = fmt::format("{}/{}", directory, kSingle);
  const std::string index = fmt::format("{}/{}", directory, kIndex);
  if (Exists(single) || !Exists(index)) {
    if (!Exists(single)) return NoWeights(directory);
    DIMMER_ASSIGN_OR_RETURN(std::shared_ptr<SafetensorsFile> file, SafetensorsFile::Open(single));
    weights.files_.push_back(std::move(file));
    return weights;
  }

  DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(index));
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, index));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields root, JsonFields::Of(json, index));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields map, root.Object("weight_map"));
  DIMMER_ASSIGN_OR_RETURN(const std::set<std::string> names, ShardNames(map));
  std::map<std::string, std::string_view> owners;  // tensor -> its shard
  for (const std::string& name : names) {
    DIMMER_ASSIGN_OR_RETURN(std::shared_ptr<SafetensorsFile> file,
                            SafetensorsFile::Open(fmt::format("{}/{}", directory, name)));
    for (const auto& [tensor, view] : file->tensors()) {
      const auto [owner, fresh] = owners.emplace(tensor, name);
      if (!fresh) {
        return absl::InvalidArgumentError(
            fmt::format("{}: tensor {}: found it in {} too, expected it in one file", file->path(),
                        tensor, owner->second));
      }
    }
    weights.files_.push_back(std::move(file));
  }
  for (const auto& item : map.json().items()) {
    const auto owner = owners.find(item.key());
    if (owner == owners.end() || owner->second != item.value().get_ref<const std::string&>()) {
      return absl::InvalidArgumentError(fmt::format(
          "{}/{}: tensor {}: found {}, expected it here as {} says", directory,
          item.value().get_ref<const std::string&>(), item.key(),
          owner == owners.end() ? "nothing" : fmt::format("it in {}", owner->second), kIndex));
    }
  }
  if (weights.files_.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: weight_map: found no tensors, expected some", index));
  }
  return weights;
}

const TensorView* Weights::Find(std::string_view name) const {
  for (const auto& file : files_) {
    if (const TensorView* view = file->Find(name)) return view;
  }
  return nullptr;
}

absl::StatusOr<TensorView> Weights::Get(std::string_view name,
                                        std::span<const int64_t> shape) const {
  const TensorView* view = Find(name);
  if (view == nullptr) {
    return absl::NotFoundError(fmt::format(
        "{}: tensor {}: found nothing, expected it with shape {}",
        files_.empty() ? "no weights" : files_.front()->path(), name, ShapeString(shape)));
  }
  if (!std::equal(shape.begin(), shape.end(), view->shape.begin(), view->shape.end())) {
    return absl::InvalidArgumentError(fmt::format("{}: tensor {}: found shape {}, expected {}",
                                                  view->file, name, ShapeString(view->shape),
                                                  ShapeString(shape)));
  }
  if (!IsFloat(view->dtype)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: tensor {}: found {}, expected F32, F16 or BF16", view->file, name,
                    DTypeName(view->dtype)));
  }
  return *view;
}

absl::StatusOr<std::vector<float>> Weights::Floats(std::string_view name,
                                                   std::span<const int64_t> shape) const {
  DIMMER_ASSIGN_OR_RETURN(const TensorView view, Get(name, shape));
  std::vector<float> values(static_cast<size_t>(view.elements()));
  DIMMER_RETURN_IF_ERROR(ReadFloats(view, values));
  ReleasePages(view);
  return values;
}

std::vector<std::string> Weights::names() const {
  std::vector<std::string> names;
  for (const auto& file : files_) {
    for (const auto& [name, view] : file->tensors()) names.push_back(name);
  }
  return names;
}

std::vector<std::string> Weights::files() const {
  std::vector<std::string> files;
  for (const auto& file : files_) files.push_back(file->path());
  return files;
}

uint64_t Weights::fp32_bytes() const {
  uint64_t bytes = 0;
  for (const auto& file : files_) {
    for (const auto& [name, view] : file->tensors()) {
      if (IsFloat(view.dtype)) bytes += 4 * static_cast<uint64_t>(view.elements());
    }
  }
  return bytes;
}

}  // namespace dimmer
