#include "training/work_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

// Files that AtomicFile had not finished when the process was killed. Only in folders of stages:
// nothing else in the work folder is ours.
void RemoveTemporaryFiles(const std::string& work) {
  std::error_code error;
  for (const char* stage : {"pretrain", "sparsify", "split", "route", "calibrate"}) {
    std::vector<std::filesystem::path> leftover;
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(work + "/" + stage, error)) {
      const bool temporary = entry.path().filename().string().find(".tmp.") != std::string::npos;
      if (temporary && entry.is_regular_file(error)) leftover.push_back(entry.path());
    }
    for (const auto& path : leftover) std::filesystem::remove(path, error);
  }
}

}  // namespace

absl::StatusOr<StageDir> StageDir::Open(const std::string& work, const std::string& stage) {
  std::string directory = work + "/" + stage;
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    return absl::FailedPreconditionError(
        fmt::format("{}: cannot create this folder: {}", directory, error.message()));
  }
  return StageDir(std::move(directory));
}

std::optional<nlohmann::json> StageDir::Done(const std::string& fingerprint) const {
  const auto text = ReadTextFile(Path("done.json"));
  if (!text.ok()) return std::nullopt;
  const auto json = ParseJson(*text, Path("done.json"));
  if (!json.ok() || !json->is_object()) return std::nullopt;
  const auto stated = json->find("fingerprint");
  const auto files = json->find("files");
  if (stated == json->end() || *stated != fingerprint || files == json->end() ||
      !files->is_object() || !json->contains("report")) {
    return std::nullopt;
  }
  for (const auto& [file, checksum] : files->items()) {
    const auto found = FileChecksum(Path(file));
    if (!found.ok() || checksum != *found) return std::nullopt;
  }
  return json->at("report");
}

absl::Status StageDir::MarkDone(const std::string& fingerprint,
                                const std::vector<std::string>& files,
                                const nlohmann::json& report) const {
  nlohmann::json checksums = nlohmann::json::object();
  for (const std::string& file : files) {
    DIMMER_ASSIGN_OR_RETURN(const std::string checksum, FileChecksum(Path(file)));
    checksums[file] = checksum;
  }
  const nlohmann::json done = {
      {"fingerprint", fingerprint}, {"files", checksums}, {"report", report}};
  return WriteTextFile(Path("done.json"), done.dump(2) + "\n");
}

absl::StatusOr<WorkLock> WorkLock::Acquire(const std::string& work) {
  std::error_code error;
  std::filesystem::create_directories(work, error);
  const std::string path = work + "/lock";
  const int fd = error ? -1 : open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) {
    return absl::FailedPreconditionError(
        fmt::format("--work: {}: cannot use this folder: {}", work,
                    error ? error.message() : std::generic_category().message(errno)));
  }
  WorkLock lock(fd);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      return absl::FailedPreconditionError(fmt::format("--work: {}: cannot lock it: {}", path,
                                                       std::generic_category().message(errno)));
    }
    return absl::FailedPreconditionError(
        fmt::format("--work: {} is in use by another dimmer-convert", work));
  }
  RemoveTemporaryFiles(work);
  return lock;
}

WorkLock::~WorkLock() {
  if (fd_ >= 0) close(fd_);
}

absl::Status SaveWeights(const std::string& path, const ModelLayout& layout,
                         const WeightMap& weights, DType dtype) {
  std::vector<TensorToWrite> tensors;
  for (const NamedShape& tensor : layout.tensors) {
    tensors.push_back({tensor.name, dtype, tensor.shape, weights.at(tensor.name)});
  }
  // The metadata that the transformers library asks for.
  return WriteSafetensors(path, tensors, {{"format", "pt"}});
}

absl::StatusOr<WeightMap> LoadWeights(const std::string& path, const ModelLayout& layout) {
  DIMMER_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(path));
  WeightMap weights;
  for (const NamedShape& tensor : layout.tensors) {
    const TensorView* view = file->Find(tensor.name);
    if (view == nullptr || view->shape != tensor.shape) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: {}: found {}, expected shape {}", path, tensor.name,
          view == nullptr ? "nothing" : ShapeString(view->shape), ShapeString(tensor.shape)));
    }
    std::vector<float> values(view->elements());
    DIMMER_RETURN_IF_ERROR(ReadFloats(*view, values));
    weights[tensor.name] = std::move(values);
  }
  return weights;
}

}  // namespace dimmer
