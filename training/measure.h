// Quality and cost of a package over labelled rows, through the engine that will serve it.
//
// Thread safety: pure functions; the model is only read.
#ifndef DIMMER_TRAINING_MEASURE_H_
#define DIMMER_TRAINING_MEASURE_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "engine/models/model.h"
#include "engine/text/tokenizer.h"
#include "training/batch.h"
#include "training/data.h"

namespace dimmer {

// A measured value with its 95% interval.
struct Interval {
  double value = 0, low = 0, high = 0;
};

// Share of successes with Wilson's score interval (Wilson 1927). `trials` > 0.
Interval WilsonInterval(uint64_t successes, uint64_t trials);

// Difference of two shares over the same rows, other - base, with a normal interval on the paired
// differences. `base` and `other` are of the same, non-zero length.
Interval PairedDifference(const std::vector<bool>& base, const std::vector<bool>& other);

// All rows at one tau.
struct SweepPoint {
  double tau = 0;
  uint64_t flops = 0, dense_flops = 0;
  std::vector<bool> correct;        // per row
  std::vector<double> experts_run;  // mean per token, one per MoE module

  double flop_fraction() const;
  Interval accuracy() const;
};

// The taus that a calibration measures: dense near zero, where the cost falls fastest.
std::vector<double> DefaultTaus();

// Runs every example at every tau, uniform over the MoE modules. `on_tau` hears of each point.
// Returns the first error of any sequence, with its row.
absl::StatusOr<std::vector<SweepPoint>> MeasureSweep(
    const Model& model, std::span<const Example> examples, std::span<const double> taus,
    uint32_t threads, const std::function<void(const SweepPoint&)>& on_tau);

Calibration CalibrationFrom(std::span<const SweepPoint> sweep, uint64_t tokens);

// The point of the largest tau such that it and every smaller tau keep at least `share` of the
// accuracy at the first point (tau 0). `sweep` ascends in tau.
size_t LastPointKeeping(std::span<const SweepPoint> sweep, double share);

// Tokenizes rows, cut at `max_tokens`, with class indices by `labels`. InvalidArgument names the
// line of a row whose label is not one of them.
absl::StatusOr<std::vector<Example>> Tokenize(const Tokenizer& tokenizer,
                                              std::span<const TextRow> rows,
                                              std::span<const std::string> labels,
                                              uint32_t max_tokens);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_MEASURE_H_
