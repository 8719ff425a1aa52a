// Loss and cost of a language model over documents, for a list of taus.
//
// Thread safety: pure functions.
#ifndef DIMMER_TRAINING_LANGUAGE_MEASURE_H_
#define DIMMER_TRAINING_LANGUAGE_MEASURE_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <vector>

#include "engine/budget/calibration.h"
#include "training/blocks.h"
#include "training/measure.h"

namespace dimmer {

inline constexpr std::string_view kBitsPerByte = "bits_per_byte";

// What some windows cost, and the sum of -ln p of every window's predicted ids.
struct WindowScores {
  std::vector<double> nats;  // per window
  uint64_t tokens = 0;       // that ran
  uint64_t flops = 0, dense_flops = 0;
  std::vector<uint64_t> expert_runs;  // per MoE module
};
// Scores windows of ids at a tau, uniform over the MoE modules. May be called from several threads.
using WindowScorer = std::function<absl::StatusOr<WindowScores>(
    std::span<const std::vector<int32_t>> windows, double tau)>;

// All documents at one tau.
struct LossPoint {
  double tau = 0;
  uint64_t flops = 0, dense_flops = 0;
  std::vector<double> nats;         // per document
  std::vector<double> experts_run;  // mean per token, one per MoE module

  double flop_fraction() const {
    return static_cast<double>(flops) / static_cast<double>(dense_flops);
  }
  double total_nats() const;
};

// The documents that a sweep was measured on, as far as its figures need them.
struct MeasuredText {
  std::vector<uint64_t> bytes;  // of text, per document
  uint64_t predicted = 0;       // ids: each document's tokens and its end
};
MeasuredText Measured(std::span<const TokenizedDocument> documents);

struct LossSweep {
  MeasuredText text;
  std::vector<LossPoint> points;  // ascending in tau, from 0
};
nlohmann::json ToJson(const LossSweep& sweep);
LossSweep LossSweepFromJson(const nlohmann::json& json);

// `threads` windows' batches at a time. `on_tau` hears of each point.
absl::StatusOr<LossSweep> MeasureLoss(const WindowScorer& score,
                                      std::span<const TokenizedDocument> documents,
                                      uint32_t context, std::span<const double> taus,
                                      uint32_t threads,
                                      const std::function<void(const LossPoint&)>& on_tau);

// Total nats / ln 2 / bytes of text, with a 95% interval by bootstrap over documents (Efron 1979;
// 2000 resamples, a fixed seed).
double BitsPerByte(const MeasuredText& text, const LossPoint& point);
Interval BitsPerByteInterval(const MeasuredText& text, const LossPoint& point);
// The loss's relative increase over `base`'s on the same documents, with a paired interval.
Interval LossIncrease(const LossPoint& base, const LossPoint& point);
// e^(nats per predicted id).
double Perplexity(const MeasuredText& text, const LossPoint& point);

Calibration CalibrationFrom(const LossSweep& sweep);

// The point of the largest tau such that it and every smaller tau lose at most `increase` (0.01:
// 1%) against the first point (tau 0).
size_t LastPointWithin(const LossSweep& sweep, double increase);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_LANGUAGE_MEASURE_H_
