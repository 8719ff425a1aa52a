// Calibration: what a tau costs and what it is worth, measured at conversion on calibration rows.
#ifndef DIMMER_ENGINE_BUDGET_CALIBRATION_H_
#define DIMMER_ENGINE_BUDGET_CALIBRATION_H_

#include <cstdint>
#include <string>
#include <vector>

namespace dimmer {

struct CalibrationPoint {
  double tau = 0;
  double flop_fraction = 1;  // whole-model FLOPs, routers included, over dense FLOPs
  double quality = 0;        // metric over the calibration rows
  double quality_low = 0;    // 95% confidence interval
  double quality_high = 0;
  std::vector<double> experts_run;  // mean per token, one per MoE module
};

// Points ascend in tau and start with tau = 0. Empty for a plain checkpoint. Immutable,
// thread-safe.
struct Calibration {
  std::string metric;  // "accuracy"
  uint64_t rows = 0;
  uint64_t tokens = 0;
  std::vector<CalibrationPoint> points;

  bool empty() const { return points.empty(); }
  // Linear interpolation in tau, clamped to the table's ends. `points` must not be empty.
  CalibrationPoint At(double tau) const;
  // The smallest tau whose predicted flop_fraction is at most `fraction` (1 if none is).
  double TauForFraction(double fraction) const;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_BUDGET_CALIBRATION_H_
