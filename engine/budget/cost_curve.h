// What a tau is expected to cost a causal model, module by module and learned as it runs, and what
// any tau costs at least.
//
// Thread safety: none; state of one sequence.
#ifndef DIMMER_ENGINE_BUDGET_COST_CURVE_H_
#define DIMMER_ENGINE_BUDGET_COST_CURVE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/budget/calibration.h"
#include "engine/budget/cost_model.h"

namespace dimmer {

// The least and the most that one token can cost in each MoE module under the operator's bounds on
// tau. A module whose router is not worth running is always dense.
class CostBounds {
 public:
  CostBounds(const CostModel& cost, double min_tau, double max_tau);

  bool always_dense(size_t module) const { return always_dense_[module]; }
  bool only_dense() const { return only_dense_; }  // every module; also without any
  // Per token, in modules [first, end).
  uint64_t Floor(size_t first) const { return floor_[first]; }
  uint64_t Ceiling() const { return ceiling_; }

  uint64_t FloorFlops(const CostModel& cost, const TokenSpan& span) const {
    return cost.FixedFlops(span) + span.tokens * Floor(0);
  }
  uint64_t CeilingFlops(const CostModel& cost, const TokenSpan& span) const {
    return cost.FixedFlops(span) + span.tokens * Ceiling();
  }

 private:
  std::vector<bool> always_dense_;
  std::vector<uint64_t> floor_;  // [modules + 1], sums from the end
  uint64_t ceiling_ = 0;
  bool only_dense_ = true;
};

// C(tau) of the experts that the gate decides about, in FLOPs per token, routers not included. From
// the calibration's mean number of experts run; without a calibration, from a guess. The ratio of
// what ran to what was foretold scales it, so that a calibration on other text does not bias what
// follows.
class CostCurve {
 public:
  // `calibration` must outlive this.
  CostCurve(const CostModel& cost, const Calibration& calibration, const CostBounds& bounds);

  // The smallest tau that is expected to cost at most `flops` per token; 1 if none is.
  double TauFor(double flops) const;
  // `tokens` ran `flops` per token's experts in all at `tau` > 0.
  void Learn(double tau, uint64_t tokens, uint64_t flops);

  // How many experts of each module run per token at `tau`, next to one another; all of them
  // without a calibration.
  std::vector<double> ExpertsRun(const CostModel& cost, double tau) const;

  double dense() const { return points_.front().flops; }
  double floor() const { return points_.back().flops; }

 private:
  struct Point {
    double tau;
    double flops;
  };
  double Foretold(double tau) const;  // by the calibration alone
  double Expected(size_t point) const;

  const Calibration* calibration_;
  std::vector<Point> points_;  // ascending in tau, from 0 to 1
  // Both forget, so that the ratio is that of the last tokens.
  double ran_ = 0;
  double foretold_ = 0;
  double ratio_ = 1;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_BUDGET_COST_CURVE_H_
