// A conversion's intermediate results on disk: one folder per stage, and in it done.json, which
// says what the stage was computed from and what it left behind.
//
// A stage counts as done only while its fingerprint (inputs and options) is the wanted one and its
// files still have their checksums: stale or damaged work is computed again.
#ifndef DIMMER_TRAINING_WORK_DIR_H_
#define DIMMER_TRAINING_WORK_DIR_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/package/safetensors.h"
#include "training/layout.h"

namespace dimmer {

class StageDir {
 public:
  // Creates <work>/<stage>. The error names the folder and the system's reason.
  static absl::StatusOr<StageDir> Open(const std::string& work, const std::string& stage);

  std::string Path(const std::string& file) const { return directory_ + "/" + file; }
  const std::string& directory() const { return directory_; }

  // The stage's report, if it is done for `fingerprint`.
  std::optional<nlohmann::json> Done(const std::string& fingerprint) const;
  // Atomic; `files` lie in the folder.
  absl::Status MarkDone(const std::string& fingerprint, const std::vector<std::string>& files,
                        const nlohmann::json& report) const;

 private:
  explicit StageDir(std::string directory) : directory_(std::move(directory)) {}
  std::string directory_;
};

// The right to use a work folder, for as long as the object lives. Move-only.
class WorkLock {
 public:
  // Creates the folder, and removes temporary files that a killed run left in the stages' folders.
  // FailedPrecondition: another process has it; or the folder cannot be made.
  static absl::StatusOr<WorkLock> Acquire(const std::string& work);
  WorkLock(WorkLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  WorkLock& operator=(WorkLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~WorkLock();

 private:
  explicit WorkLock(int fd) : fd_(fd) {}
  int fd_;
};

// All of layout.tensors, in their order.
absl::Status SaveWeights(const std::string& path, const ModelLayout& layout,
                         const WeightMap& weights, DType dtype);
absl::StatusOr<WeightMap> LoadWeights(const std::string& path, const ModelLayout& layout);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_WORK_DIR_H_
