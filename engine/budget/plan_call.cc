#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

#include "engine/budget/budget.h"
#include "engine/budget/tau_plan.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

absl::Status CheckRange(std::string_view field, double value, bool zero_allowed) {
  if (std::isfinite(value) && value <= 1 && (zero_allowed ? value >= 0 : value > 0)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format("budget.{}: found {}, expected a number in {}0, 1]",
                                                field, value, zero_allowed ? "[" : "("));
}

// Turns one request's budget into plans; holds what is the same for all its sequences.
class Planner {
 public:
  Planner(const TauSettings& settings, const CostModel& cost, const Calibration& calibration)
      : settings_(settings), cost_(cost), calibration_(calibration) {}

  // max_tau 0 leaves only the dense path, as does a checkpoint without experts.
  bool only_dense() const { return cost_.moe.empty() || settings_.max_tau <= 0; }

  // Nothing is cheaper than the dense path: the only one, or one of few experts and wide routers.
  bool dense_is_floor(uint64_t tokens) const {
    return only_dense() ||
           (settings_.min_tau <= 0 && cost_.DenseFlops(tokens) <= cost_.FloorFlops(tokens));
  }

  // No plan of a sequence costs less.
  uint64_t Floor(uint64_t tokens) const {
    return dense_is_floor(tokens) ? cost_.DenseFlops(tokens) : cost_.FloorFlops(tokens);
  }

  // No plan within the operator's bounds costs more.
  uint64_t Ceiling(uint64_t tokens) const {
    uint64_t flops = cost_.DenseFlops(tokens);
    if (only_dense() || settings_.min_tau <= 0) return flops;
    for (const MoeCost& module : cost_.moe) flops += tokens * module.router_flops;
    return flops;
  }

  ComputePlan Tau(double tau) const { return PlanTau(tau, settings_, cost_); }
  ComputePlan Default() const { return PlanDefault(settings_, cost_); }

  // As near to dense as the operator allows.
  ComputePlan Brightest() const { return Tau(0); }

  ComputePlan FlopFraction(double fraction, uint64_t tokens) const {
    if (fraction >= 1) return Brightest();
    if (dense_is_floor(tokens)) {
      ComputePlan plan = Brightest();
      plan.clamped = true;
      return plan;
    }
    const auto asked =
        static_cast<uint64_t>(std::llround(fraction * double(cost_.DenseFlops(tokens))));
    const uint64_t floor = cost_.FloorFlops(tokens);
    ComputePlan plan = Quota(std::max(asked, floor), tokens);
    plan.clamped = asked < floor;
    return plan;
  }

  // `share` is at least Floor(tokens).
  ComputePlan MaxFlops(uint64_t share, uint64_t tokens) const {
    if (share >= Ceiling(tokens)) return Brightest();
    ComputePlan plan = Quota(share, tokens);
    plan.hard = true;
    return plan;
  }

 private:
  ComputePlan Quota(uint64_t target, uint64_t tokens) const {
    ComputePlan plan;
    plan.kind = ComputePlan::Kind::kQuota;
    plan.target_flops = target;
    plan.min_tau = settings_.min_tau;
    plan.max_tau = settings_.max_tau;
    plan.module_weight = Weights(double(target) / double(cost_.DenseFlops(tokens)));
    return plan;
  }

  // Experts that each module is expected to run per token at this share of the dense FLOPs;
  // without a calibration, the same share of every module.
  std::vector<double> Weights(double fraction) const {
    std::vector<double> weights(cost_.moe.size());
    if (!calibration_.empty()) {
      weights = calibration_.At(calibration_.TauForFraction(fraction)).experts_run;
    }
    const bool usable = !calibration_.empty() && weights.size() == cost_.moe.size();
    weights.resize(cost_.moe.size());
    for (size_t i = 0; i < weights.size(); ++i) {
      const double experts = cost_.moe[i].experts;
      weights[i] = usable ? std::clamp(weights[i], std::min(1.0, experts), experts) : experts;
    }
    return weights;
  }

  const TauSettings& settings_;
  const CostModel& cost_;
  const Calibration& calibration_;
};

// Shares `max_flops` out in proportion to tokens, between each sequence's floor and ceiling: the
// largest number of FLOPs per token that fits, the rest (less than one FLOP per token) to the
// first that can use it. The shares' sum is min(max_flops, sum of ceilings), given that the floors
// fit.
std::vector<uint64_t> ShareOut(uint64_t max_flops, const Planner& planner,
                               std::span<const uint32_t> tokens) {
  uint64_t most = 0;  // FLOPs per token that nobody needs more than
  std::vector<uint64_t> floor(tokens.size()), ceiling(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    floor[i] = planner.Floor(tokens[i]);
    ceiling[i] = planner.Ceiling(tokens[i]);
    most = std::max(most, ceiling[i] / std::max<uint64_t>(tokens[i], 1) + 1);
  }
  const auto share = [&](uint64_t per_token, size_t i) {
    return std::min(std::max(per_token * tokens[i], floor[i]), ceiling[i]);
  };
  const auto sum = [&](uint64_t per_token) {
    uint64_t flops = 0;
    for (size_t i = 0; i < tokens.size(); ++i) flops += share(per_token, i);
    return flops;
  };
  uint64_t low = 0, high = most;  // sum(low) <= max_flops
  while (low < high) {
    const uint64_t middle = low + (high - low + 1) / 2;
    if (sum(middle) <= max_flops) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  std::vector<uint64_t> shares(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) shares[i] = share(low, i);
  uint64_t left = max_flops - std::accumulate(shares.begin(), shares.end(), uint64_t{0});
  for (size_t i = 0; i < tokens.size(); ++i) {
    const uint64_t more = std::min(left, ceiling[i] - shares[i]);
    shares[i] += more;
    left -= more;
  }
  return shares;
}

absl::Status CheckFloor(uint64_t max_flops, const Planner& planner, bool plain,
                        std::span<const uint32_t> tokens) {
  uint64_t floor = 0, all_tokens = 0;
  for (const uint32_t count : tokens) {
    floor += planner.Floor(count);
    all_tokens += count;
  }
  if (floor <= max_flops) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format(
      "max_flops {} is below the floor of this call: {} FLOPs for {} text{} of {} tokens{}",
      max_flops, floor, tokens.size(), tokens.size() == 1 ? "" : "s", all_tokens,
      plain                  ? " (the model has no experts and always runs dense)"
      : planner.only_dense() ? " (the operator's max_tau of 0 makes the model run dense)"
                             : ""));
}

}  // namespace

absl::Status ValidateBudget(const Budget& budget) {
  switch (budget.kind) {
    case Budget::Kind::kDefault:
      return absl::OkStatus();
    case Budget::Kind::kTau:
      return CheckRange("tau", budget.value, /*zero_allowed=*/true);
    case Budget::Kind::kFlopFraction:
      return CheckRange("flop_fraction", budget.value, /*zero_allowed=*/false);
    case Budget::Kind::kMaxFlops:
      if (budget.max_flops > 0) return absl::OkStatus();
      return absl::InvalidArgumentError("budget.max_flops: found 0, expected a positive number");
    case Budget::Kind::kMinQuality:
      return absl::UnimplementedError("budget.min_quality is not supported yet");
  }
  return absl::InvalidArgumentError(
      fmt::format("budget: unknown kind {}", static_cast<int>(budget.kind)));
}

bool ComputePlan::dense() const {
  return kind == Kind::kTau &&
         std::all_of(module_tau.begin(), module_tau.end(), [](double tau) { return tau == 0; });
}

absl::StatusOr<std::vector<ComputePlan>> PlanCall(const Budget& budget, const TauSettings& settings,
                                                  const CostModel& cost,
                                                  const Calibration& calibration,
                                                  std::span<const uint32_t> tokens) {
  DIMMER_RETURN_IF_ERROR(ValidateBudget(budget));
  const Planner planner(settings, cost, calibration);
  std::vector<ComputePlan> plans(tokens.size());
  switch (budget.kind) {
    case Budget::Kind::kDefault:
      std::fill(plans.begin(), plans.end(), planner.Default());
      break;
    case Budget::Kind::kTau:
      std::fill(plans.begin(), plans.end(), planner.Tau(budget.value));
      break;
    case Budget::Kind::kFlopFraction:
      for (size_t i = 0; i < tokens.size(); ++i) {
        plans[i] = planner.FlopFraction(budget.value, tokens[i]);
      }
      break;
    case Budget::Kind::kMaxFlops: {
      DIMMER_RETURN_IF_ERROR(CheckFloor(budget.max_flops, planner, cost.moe.empty(), tokens));
      const std::vector<uint64_t> shares = ShareOut(budget.max_flops, planner, tokens);
      for (size_t i = 0; i < tokens.size(); ++i) {
        plans[i] = planner.MaxFlops(shares[i], tokens[i]);
      }
      break;
    }
    case Budget::Kind::kMinQuality:
      break;  // refused by ValidateBudget
  }
  return plans;
}

}  // namespace dimmer
