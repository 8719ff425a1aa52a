#include "engine/budget/cost_curve.h"

#include <algorithm>
#include <cmath>

namespace dimmer {
namespace {

// Tokens after which a chunk counts 1/e in the learned ratio.
constexpr double kMemoryTokens = 64;
// The calibration counts like so many tokens that ran as it foretold.
constexpr double kTrustTokens = 4;
constexpr double kMaxRatio = 16;
constexpr int kGuessedPoints = 32;

}  // namespace

CostBounds::CostBounds(const CostModel& cost, double min_tau, double max_tau)
    : always_dense_(cost.moe.size()), floor_(cost.moe.size() + 1) {
  for (size_t m = cost.moe.size(); m-- > 0;) {
    const MoeCost& module = cost.moe[m];
    const uint64_t gated = module.router_flops + module.pair_flops;
    const uint64_t dense = module.dense_flops();
    always_dense_[m] = max_tau <= 0 || (min_tau <= 0 && dense <= gated);
    floor_[m] = floor_[m + 1] + (always_dense_[m] ? dense : gated);
    // A hard cap can make a module's router run where all of its experts do.
    ceiling_ += dense + (min_tau > 0 ? module.router_flops : 0);
    only_dense_ &= always_dense_[m];
  }
}

CostCurve::CostCurve(const CostModel& cost, const Calibration& calibration,
                     const CostBounds& bounds)
    : calibration_(&calibration) {
  const auto sum = [&](auto experts_of) {
    double flops = 0;
    for (size_t m = 0; m < cost.moe.size(); ++m) {
      if (bounds.always_dense(m)) continue;
      const double experts = cost.moe[m].experts;
      flops += std::clamp(experts_of(m), std::min(1.0, experts), experts) *
               double(cost.moe[m].pair_flops);
    }
    return flops;
  };
  points_.push_back({0, sum([&](size_t m) { return double(cost.moe[m].experts); })});
  for (const CalibrationPoint& point : calibration.points) {
    if (point.tau <= points_.back().tau || point.tau >= 1) continue;
    if (point.experts_run.size() != cost.moe.size()) continue;
    points_.push_back({point.tau, sum([&](size_t m) { return point.experts_run[m]; })});
  }
  if (points_.size() == 1) {
    for (int i = 1; i < kGuessedPoints; ++i) {
      const double tau = double(i) / kGuessedPoints;
      points_.push_back(
          {tau, sum([&](size_t m) { return std::pow(double(cost.moe[m].experts), 1 - tau); })});
    }
  }
  points_.push_back({1, sum([](size_t) { return 1.0; })});
}

double CostCurve::Expected(size_t point) const {
  // The dense path costs what it costs.
  if (point == 0) return dense();
  return std::clamp(points_[point].flops * ratio_, floor(), dense());
}

double CostCurve::TauFor(double flops) const {
  if (dense() <= flops) return 0;
  // A measured curve may rise a little here and there: the first crossing from the left.
  double left = dense();
  for (size_t i = 1; i < points_.size(); ++i) {
    const double right = Expected(i);
    if (right <= flops) {
      const double t = (left - flops) / (left - right);
      return std::lerp(points_[i - 1].tau, points_[i].tau, t);
    }
    left = right;
  }
  return 1;
}

std::vector<double> CostCurve::ExpertsRun(const CostModel& cost, double tau) const {
  std::vector<double> run;
  if (!calibration_->empty()) run = calibration_->At(tau).experts_run;
  const bool usable = run.size() == cost.moe.size();
  run.resize(cost.moe.size());
  for (size_t m = 0; m < run.size(); ++m) {
    const double experts = cost.moe[m].experts;
    run[m] = usable ? std::clamp(run[m], std::min(1.0, experts), experts) : experts;
  }
  return run;
}

double CostCurve::Foretold(double tau) const {
  size_t i = 1;
  while (i + 1 < points_.size() && points_[i].tau < tau) ++i;
  const Point& a = points_[i - 1];
  const Point& b = points_[i];
  return std::lerp(a.flops, b.flops, (tau - a.tau) / (b.tau - a.tau));
}

void CostCurve::Learn(double tau, uint64_t tokens, uint64_t flops) {
  const double each = Foretold(tau);
  const double kept = std::exp(-double(tokens) / kMemoryTokens);
  ran_ = ran_ * kept + double(flops);
  foretold_ = foretold_ * kept + each * double(tokens);
  const double trust = kTrustTokens * each;
  if (foretold_ + trust <= 0) return;
  ratio_ = std::clamp((ran_ + trust) / (foretold_ + trust), 1 / kMaxRatio, kMaxRatio);
}

}  // namespace dimmer
