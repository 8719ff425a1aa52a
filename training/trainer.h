// Data-parallel AdamW with a penalty on activations: fine-tuning for sparse activations
// (ALGORITHM.md, section 1; Szatkowski et al. 2024, Eq. 1) and, without the penalty, pretraining.
// Knows neither the model's family nor the task.
#ifndef DIMMER_TRAINING_TRAINER_H_
#define DIMMER_TRAINING_TRAINER_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "training/options.h"
#include "training/trainee.h"
#include "training/training_data.h"

namespace dimmer {

// Mean over the steps since the last one.
struct TrainProgress {
  uint64_t step = 0, steps = 0;  // done, in all
  double loss = 0;               // cross-entropy, nats per target
  double penalty = 0;            // mean over tokens and layers
  double active = 0;             // share of non-zero activations
};

// What is measured after every epoch, without dropout.
struct EpochCheck {
  std::string metric;  // "accuracy"
  bool lower_is_better = false;
  std::function<double(const Trainee&)> measure;
};

// One line of the training curve.
struct EpochReport {
  uint32_t epoch = 0;               // from 1
  double loss = 0;                  // mean cross-entropy over the epoch's targets, with dropout
  double penalty = 0;               // mean over tokens and layers
  std::vector<double> active = {};  // share of non-zero activations, per layer
  double quality = 0;               // what EpochCheck measured
};
// With quality and penalty under their names.
nlohmann::json ToJson(const EpochReport& report, const std::string& metric,
                      const std::string& penalty);

// Position in `reports` of the best epoch, the first of equals. `reports` is not empty.
size_t BestEpoch(std::span<const EpochReport> reports, bool lower_is_better);

struct TrainCallbacks {
  // Once, with the steps that an interrupted run had done (0: none), and all.
  std::function<void(uint64_t done, uint64_t steps)> on_start;
  std::function<void(const TrainProgress&)> on_progress;  // every few steps
  std::function<void(const EpochReport&)> on_epoch;
  // Seen after every step; true stops with Cancelled, as a kill would.
  std::function<bool(uint64_t step)> stop;
};

// Where a run keeps its state.
struct TrainState {
  std::string path, fingerprint;
};

// Trains `model` in place. state.path keeps weights, optimizer and position, written atomically
// every checkpoint_steps steps and at the end of each epoch; if it exists and carries
// state.fingerprint, training goes on from there, and ends with the bits of a run that was never
// interrupted. With options.keep_best the model ends with the weights of its best epoch, and
// training ends early after options.patience epochs without a better one.
// Deterministic for the same inputs, options and machine type.
absl::StatusOr<std::vector<EpochReport>> Train(Trainee& model, TrainingData& data,
                                               const EpochCheck& check, const TrainOptions& options,
                                               const TrainState& state,
                                               const TrainCallbacks& callbacks);

// Learning rate and alpha of a step (from 0), as factors in [0, 1] of their full value. The rate
// warms up, then falls by a cosine to `floor`.
double LearningRateFactor(uint64_t step, uint64_t steps, double warmup, double floor = 0);
double AlphaFactor(uint64_t step, uint64_t steps, double ramp);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_TRAINER_H_
