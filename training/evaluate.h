// dimmer-convert evaluate: quality and FLOPs of a package on given rows, through the engine.
#ifndef DIMMER_TRAINING_EVALUATE_H_
#define DIMMER_TRAINING_EVALUATE_H_

#include <absl/status/status.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "engine/models/model.h"
#include "training/progress.h"

namespace dimmer {

struct EvaluateOptions {
  std::string model;  // a package, or a model's folder in a repository (its highest version)
  std::string data;
  std::string format = "auto";
  std::string exclude;       // with part: the file that the conversion excluded, if it did
  std::string part;          // of the file that the package was made from; empty: all of `data`
  std::vector<double> taus;  // empty: the calibration's. tau 0 is always measured, first
  uint32_t workers = 2;
  uint32_t max_tokens = 0;  // 0: the model's limit
  bool json = false;

  // InvalidArgument names the option, what was found and what was expected.
  absl::Status Validate() const;
};

// The taus to measure, ascending: those asked for, else the calibration's; always 0, and nothing
// else for a plain checkpoint, which runs dense only.
std::vector<double> TausOf(const EvaluateOptions& options, const ModelInfo& info);

// Labelled rows and accuracy, or documents and bits per byte, as the model's task is. Prints a
// table, or JSON, to `out`. Errors name the file, line, option or tensor.
absl::Status Evaluate(const EvaluateOptions& options, std::FILE* out, Progress& progress);
// Of a language model that was opened from `directory`.
absl::Status EvaluateLanguageModel(const EvaluateOptions& options, const std::string& directory,
                                   const Model& model, std::FILE* out, Progress& progress);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_EVALUATE_H_
