#include "engine/budget/calibration.h"

#include <algorithm>
#include <cmath>

namespace dimmer {
namespace {

CalibrationPoint Interpolate(const CalibrationPoint& a, const CalibrationPoint& b, double tau) {
  const double t = b.tau > a.tau ? (tau - a.tau) / (b.tau - a.tau) : 0;
  CalibrationPoint point{.tau = tau,
                         .flop_fraction = std::lerp(a.flop_fraction, b.flop_fraction, t),
                         .quality = std::lerp(a.quality, b.quality, t),
                         .quality_low = std::lerp(a.quality_low, b.quality_low, t),
                         .quality_high = std::lerp(a.quality_high, b.quality_high, t),
                         .experts_run = {}};
  const size_t modules = std::min(a.experts_run.size(), b.experts_run.size());
  point.experts_run.resize(modules);
  for (size_t i = 0; i < modules; ++i) {
    point.experts_run[i] = std::lerp(a.experts_run[i], b.experts_run[i], t);
  }
  return point;
}

}  // namespace

CalibrationPoint Calibration::At(double tau) const {
  const auto above =
      std::upper_bound(points.begin(), points.end(), tau,
                       [](double value, const auto& point) { return value < point.tau; });
  if (above == points.begin()) return points.front();
  if (above == points.end()) return points.back();
  return Interpolate(*std::prev(above), *above, tau);
}

double Calibration::TauForFraction(double fraction) const {
  if (points.empty()) return 1;
  if (points.front().flop_fraction <= fraction) return points.front().tau;
  // A measured curve may rise a little here and there: the first crossing from the left is the
  // answer. Everything left of it costs more.
  for (size_t i = 1; i < points.size(); ++i) {
    const CalibrationPoint& a = points[i - 1];
    const CalibrationPoint& b = points[i];
    if (b.flop_fraction > fraction) continue;
    const double t = (a.flop_fraction - fraction) / (a.flop_fraction - b.flop_fraction);
    return std::lerp(a.tau, b.tau, t);
  }
  return 1;
}

}  // namespace dimmer
