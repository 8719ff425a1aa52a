// Fine-tunes a ReLU-fied BERT classifier for sparse activations: data-parallel AdamW with the
// square Hoyer penalty (ALGORITHM.md, section 1; Szatkowski et al. 2024, Eq. 1).
#ifndef DIMMER_TRAINING_SPARSIFY_H_
#define DIMMER_TRAINING_SPARSIFY_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "training/batch.h"
#include "training/bert_trainee.h"
#include "training/options.h"

namespace dimmer {

// Mean over the steps since the last one.
struct SparsifyProgress {
  uint64_t step = 0, steps = 0;  // done, in all
  double loss = 0;               // cross-entropy
  double hoyer = 0;              // mean h over tokens and layers
  double active = 0;             // share of non-zero activations
};

// One line of the training curve.
struct EpochReport {
  uint32_t epoch = 0;               // from 1
  double loss = 0;                  // mean cross-entropy over the epoch's rows, with dropout
  double hoyer = 0;                 // mean h over tokens and layers
  std::vector<double> active = {};  // share of non-zero activations, per layer
  double accuracy = 0;              // on the check rows, without dropout
};
nlohmann::json ToJson(const EpochReport& report);

struct SparsifyCallbacks {
  // Once, with the steps that an interrupted run had done (0: none), and all.
  std::function<void(uint64_t done, uint64_t steps)> on_start;
  std::function<void(const SparsifyProgress&)> on_progress;  // every few steps
  std::function<void(const EpochReport&)> on_epoch;
  // Seen after every step; true stops with Cancelled, as a kill would.
  std::function<bool(uint64_t step)> stop;
};

// Trains `model` in place. `state_path` keeps weights, optimizer and position, written atomically
// every checkpoint_steps steps and at the end of each epoch; if it exists and carries
// `fingerprint`, training goes on from there, and ends with the bits of a run that was never
// interrupted. `check` only measures. Deterministic for the same inputs, options and machine type.
absl::StatusOr<std::vector<EpochReport>> Sparsify(
    BertTrainee& model, std::span<const Example> training, std::span<const Example> check,
    const SparsifyOptions& options, const std::string& state_path, const std::string& fingerprint,
    const SparsifyCallbacks& callbacks);

// Share of rows whose largest logit is their label.
double Accuracy(const BertTrainee& model, std::span<const Example> examples, uint32_t workers);

// Learning rate and alpha of a step (from 0), as factors in [0, 1] of their full value.
double LearningRateFactor(uint64_t step, uint64_t steps, double warmup);
double HoyerFactor(uint64_t step, uint64_t steps, double ramp);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_SPARSIFY_H_
