#include <algorithm>
#include <filesystem>
#include <set>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

bool IsFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

// The shard names of model.safetensors.index.json, each a plain file name.
absl::StatusOr<std::set<std::string>> ShardNames(const std::string& index_path) {
  DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(index_path));
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, index_path));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, index_path));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields map, fields.Object("weight_map"));
  std::set<std::string> names;
  for (const auto& [tensor, shard] : map.json().items()) {
    DIMMER_ASSIGN_OR_RETURN(const std::string name, map.String(tensor));
    if (name.empty() || name.find('/') != std::string::npos || name[0] == '.') {
      return absl::InvalidArgumentError(
          fmt::format("{}: weight_map: {}: found {}, expected a file name in the same folder",
                      index_path, tensor, name));
    }
    names.insert(name);
  }
  return names;
}

absl::Status NoWeights(const std::string& directory) {
  std::error_code error;
  const bool pickled = std::filesystem::exists(directory + "/pytorch_model.bin", error);
  return absl::NotFoundError(
      fmt::format("{}: no model.safetensors{}", directory,
                  pickled ? "; pytorch_model.bin is not read: save the checkpoint again with "
                            "save_pretrained(..., safe_serialization=True)"
                          : " and no model.safetensors.index.json"));
}

}  // namespace

absl::StatusOr<Weights> Weights::Open(const std::string& directory) {
  Weights weights;
  std::error_code error;
  std::set<std::string> names = {"model.safetensors"};
  if (!std::filesystem::exists(directory + "/model.safetensors", error)) {
    const std::string index = directory + "/model.safetensors.index.json";
    if (!std::filesystem::exists(index, error)) return NoWeights(directory);
    DIMMER_ASSIGN_OR_RETURN(names, ShardNames(index));
  }
  std::map<std::string, std::string, std::less<>> owner;
  for (const std::string& name : names) {
    DIMMER_ASSIGN_OR_RETURN(std::shared_ptr<SafetensorsFile> file,
                            SafetensorsFile::Open(directory + "/" + name));
    for (const auto& [tensor, view] : file->tensors()) {
      const auto [it, fresh] = owner.emplace(tensor, name);
      if (!fresh) {
        return absl::InvalidArgumentError(
            fmt::format("{}: tensor {}: is in {} and in {}", directory, tensor, it->second, name));
      }
    }
    weights.files_.push_back(std::move(file));
  }
  return weights;
}

const TensorView* Weights::Find(std::string_view name) const {
  for (const auto& file : files_) {
    if (const TensorView* tensor = file->Find(name)) return tensor;
  }
  return nullptr;
}

absl::StatusOr<TensorView> Weights::Get(std::string_view name,
                                        std::span<const int64_t> shape) const {
  const TensorView* tensor = Find(name);
  if (tensor == nullptr) {
    return absl::NotFoundError(fmt::format("{}: tensor {}: missing, expected shape {}",
                                           files_.empty() ? "weights" : files_[0]->path(), name,
                                           ShapeString(shape)));
  }
  if (!std::equal(shape.begin(), shape.end(), tensor->shape.begin(), tensor->shape.end())) {
    return absl::InvalidArgumentError(fmt::format("{}: tensor {}: found shape {}, expected {}",
                                                  tensor->file, name, ShapeString(tensor->shape),
                                                  ShapeString(shape)));
  }
  if (!IsFloat(tensor->dtype)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: tensor {}: found dtype {}, expected F32, F16 or BF16", tensor->file, name,
                    DTypeName(tensor->dtype)));
  }
  return *tensor;
}

absl::StatusOr<std::vector<float>> Weights::Floats(std::string_view name,
                                                   std::span<const int64_t> shape) const {
  DIMMER_ASSIGN_OR_RETURN(const TensorView tensor, Get(name, shape));
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  DIMMER_RETURN_IF_ERROR(ReadFloats(tensor, values));
  return values;
}

std::vector<std::string> Weights::names() const {
  std::vector<std::string> names;
  for (const auto& file : files_) {
    for (const auto& [name, tensor] : file->tensors()) names.push_back(name);
  }
  return names;
}

uint64_t Weights::fp32_bytes() const {
  uint64_t bytes = 0;
  for (const auto& file : files_) {
    for (const auto& [name, tensor] : file->tensors()) {
      if (IsFloat(tensor.dtype)) bytes += 4 * static_cast<uint64_t>(tensor.elements());
    }
  }
  return bytes;
}

}  // namespace dimmer
