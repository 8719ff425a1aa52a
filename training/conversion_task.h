// What a conversion is for: its data, its metric, and how a package of it is measured, drawn and
// described. The stages (training/conversion.h) know no task; a task knows no stage.
//
// Thread safety: not thread-safe, but for what says so.
#ifndef DIMMER_TRAINING_CONVERSION_TASK_H_
#define DIMMER_TRAINING_CONVERSION_TASK_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "engine/budget/calibration.h"
#include "engine/package/package.h"
#include "engine/text/tokenizer.h"
#include "training/base_model.h"
#include "training/options.h"
#include "training/progress.h"
#include "training/trainer.h"

namespace dimmer {

// What the calibrate stage found, in the terms of a package.
struct CalibrationResult {
  Calibration calibration;
  double default_tau = 0;
};

// Everything that a package's pages are written from.
struct PackageFacts {
  std::string title;
  std::string notes;                      // the author's Markdown; may be empty
  const MoeSpec* spec = nullptr;          // with calibration and provenance
  const nlohmann::json* sweep = nullptr;  // the calibrate stage's report
};

class ConversionTask {
 public:
  virtual ~ConversionTask() = default;

  // What sparsify trains on, and what it measures after every epoch on `workers` threads.
  virtual TrainingData& training() = 0;
  virtual EpochCheck check(uint32_t workers) const = 0;
  // The rows behind training(), which routers learn from; those behind check(), which their fit is
  // reported on; those that calibrate measures on; and those that it reports on besides. Stages
  // depend on nothing else of the data.
  virtual std::span<const Example> training_rows() const = 0;
  virtual std::span<const Example> check_rows() const = 0;
  virtual std::span<const Example> calibration_rows() const = 0;
  virtual std::span<const Example> test_rows() const { return {}; }

  // config.json of the dense package, as `transformers` reads it.
  virtual nlohmann::json PackageConfig(const BaseModel& base,
                                       const ConvertOptions& options) const = 0;
  // What else is to be said about the base in the package's provenance.
  virtual nlohmann::json BaseFacts(const BaseModel& base) const = 0;

  // Measures the package in the folder `candidate` for every tau, through the engine. Returns the
  // calibrate stage's report.
  virtual absl::StatusOr<nlohmann::json> Measure(const std::string& candidate,
                                                 const ConvertOptions& options,
                                                 Progress& progress) const = 0;
  virtual CalibrationResult Conclude(const nlohmann::json& sweep,
                                     const ConvertOptions& options) const = 0;
  // tradeoff.svg and README.md.
  virtual std::string Plot(const PackageFacts& facts) const = 0;
  virtual std::string Card(const PackageFacts& facts, const ConvertOptions& options) const = 0;
};

// A task with its data read, and the checkpoint that it starts from.
struct LoadedTask {
  std::unique_ptr<ConversionTask> task;
  BaseModel base;
  nlohmann::json data_report;  // what was read, dropped and used, with checksums
};

// By options.task. Errors name the file and line, or the option. `progress` hears what was read.
absl::StatusOr<LoadedTask> LoadTask(const ConvertOptions& options, Progress& progress);

// InvalidArgument: the experts do not divide the FFN; the tokenizer does not fit the embedding.
absl::Status CheckExperts(const ConvertOptions& options, const ModelLayout& layout);
absl::Status CheckVocabulary(const ConvertOptions& options, const Tokenizer& tokenizer,
                             const ModelLayout& layout);

// One per task.
absl::StatusOr<LoadedTask> LoadClassification(const ConvertOptions& options, Progress& progress);
absl::StatusOr<LoadedTask> LoadLanguageModel(const ConvertOptions& options, Progress& progress);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_CONVERSION_TASK_H_
