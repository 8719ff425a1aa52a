// The conversion of one checkpoint, stage by stage: sparsify -> split -> route -> calibrate -> pack
// (load is Create). Every stage reads what the ones before left in the work folder, and leaves its
// own result there with a fingerprint, so that a killed run goes on where it was.
//
// Thread safety: one conversion per work folder at a time; not thread-safe.
#ifndef DIMMER_TRAINING_CONVERSION_H_
#define DIMMER_TRAINING_CONVERSION_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "training/base_model.h"
#include "training/conversion_task.h"
#include "training/options.h"
#include "training/progress.h"
#include "training/work_dir.h"

namespace dimmer {

// What the stages share, fixed once loaded.
struct ConversionInputs {
  ConvertOptions options;
  BaseModel base;
  std::unique_ptr<ConversionTask> task;
  std::string notes;           // for the model card
  nlohmann::json data_report;  // what was read, dropped and used, checksums
  std::string base_checksum;   // of the checkpoint's weights

  Sparsity sparsity() const {
    return {.activation = options.activation == "keep" ? base.activation : Activation::kRelu,
            .penalty = options.sparsify.penalty};
  }
};

class Conversion {
 public:
  // Reads the checkpoint and the data. What it returns names the file and line, or the option.
  static absl::StatusOr<std::unique_ptr<Conversion>> Create(const ConvertOptions& options,
                                                            Progress& progress);

  // Each runs one stage, or finds it done. FailedPrecondition: the stage before is not done for
  // these options; the message says which command does it.
  absl::Status Sparsify();
  absl::Status Split();
  absl::Status Route();
  absl::Status Calibrate();
  absl::Status Pack();
  // All of them.
  absl::Status Run();

  const ConversionInputs& inputs() const { return inputs_; }

 private:
  explicit Conversion(Progress& progress) : progress_(progress) {}

  std::string SparsifyFingerprint() const;
  absl::StatusOr<std::string> SplitFingerprint() const;
  absl::StatusOr<std::string> RouteFingerprint() const;
  absl::StatusOr<std::string> CalibrateFingerprint() const;
  // The reports of all stages before `stage`, by name; FailedPrecondition if one is not done.
  absl::StatusOr<nlohmann::json> RequireBefore(const std::string& stage) const;
  absl::StatusOr<StageDir> Stage(const std::string& name) const {
    return StageDir::Open(inputs_.options.work, name);
  }
  absl::Status TrainRouters(const StageDir& stage, const std::string& fingerprint);
  absl::Status WriteCandidate(const std::string& directory) const;

  std::optional<WorkLock> lock_;
  ConversionInputs inputs_;
  Progress& progress_;
};

}  // namespace dimmer

#endif  // DIMMER_TRAINING_CONVERSION_H_
