#include "engine/budget/generation_budget.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "engine/budget/share_experts.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

// What was run too much or too little is made up for within so many tokens.
constexpr double kPaybackTokens = 8;
// Off by more than this, where the bounds would not let tau go on, is reported.
constexpr double kTolerance = 0.01;

uint64_t Left(uint64_t all, uint64_t used) { return all - std::min(all, used); }

}  // namespace

GenerationBudget::GenerationBudget(const ComputePlan& plan, const CostModel& cost,
                                   const Calibration& calibration, const GenerationSize& size)
    : cost_(&cost),
      plan_(plan),
      size_(size),
      bounds_(cost, plan.min_tau, plan.max_tau),
      curve_(cost, calibration, bounds_),
      pairs_(cost.moe.size()) {
  for (size_t m = 0; m < cost.moe.size(); ++m) {
    place_.push_back(gated_.size());
    if (!bounds_.always_dense(m)) gated_.push_back(cost.moe[m]);
  }
}

uint64_t GenerationBudget::ReserveAfter(const TokenSpan& chunk) const {
  const TokenSpan least = size_.Least();
  const uint64_t next = chunk.first + chunk.tokens;
  const TokenSpan rest{.first = next,
                       .tokens = Left(least.tokens, next),
                       .heads = Left(least.heads, heads_ + chunk.heads)};
  return bounds_.FloorFlops(*cost_, rest);
}

bool GenerationBudget::Begin(const TokenSpan& chunk) {
  chunk_ = chunk;
  capped_ = false;
  moe_flops_ = gated_flops_ = 0;
  chunk_tau_ = gated_tau_ = 0;
  weight_.clear();
  if (plan_.kind != ComputePlan::Kind::kSteered) return true;
  if (plan_.hard) {
    const uint64_t left = Left(plan_.target_flops, flops_);
    const uint64_t fixed = cost_->FixedFlops(chunk);
    const uint64_t floor = chunk.tokens * bounds_.Floor(0);
    if (left < fixed + floor) return false;
    available_ = std::max(floor, Left(left - fixed, ReserveAfter(chunk)));
  }
  Steer(chunk);
  return true;
}

double GenerationBudget::WantedFlops(const TokenSpan& chunk) const {
  const double dense = double(cost_->DenseFlops(chunk));
  if (plan_.hard) {
    // The same share of all that may still come.
    const TokenSpan all = size_.All();
    const TokenSpan rest{.first = chunk.first,
                         .tokens = std::max(chunk.tokens, Left(all.tokens, chunk.first)),
                         .heads = std::max(chunk.heads, Left(all.heads, heads_))};
    return dense * (double(Left(plan_.target_flops, flops_)) / double(cost_->DenseFlops(rest)));
  }
  const double due = plan_.target_fraction * double(dense_flops_) - double(flops_);
  const double wanted = plan_.target_fraction * dense;
  // A dense step that is paid for is taken: between the dense path and the smallest tau above it
  // there can be a step in cost that no tau lies on.
  if (wanted + due >= dense) return dense;
  const auto tokens = double(chunk.tokens);
  return wanted + due * (tokens / std::max(tokens, kPaybackTokens));
}

void GenerationBudget::Steer(const TokenSpan& chunk) {
  tau_ = 0;
  if (gated_.empty() || chunk.tokens == 0) return;
  const double wanted = WantedFlops(chunk);
  double tau = 0;
  if (wanted < double(cost_->DenseFlops(chunk))) {
    double unavoidable = double(cost_->FixedFlops(chunk));
    for (size_t m = 0; m < cost_->moe.size(); ++m) {
      const MoeCost& module = cost_->moe[m];
      unavoidable += double(chunk.tokens *
                            (bounds_.always_dense(m) ? module.dense_flops() : module.router_flops));
    }
    due_ = wanted - unavoidable;
    const double each = due_ / double(chunk.tokens);
    bounded_ |= each < curve_.floor();
    tau = curve_.TauFor(each);
  }
  tau_ = std::clamp(tau, plan_.min_tau, plan_.max_tau);
  bounded_ |= tau_ != tau;
  // A hard quota below what max_tau demands would end the generation.
  const bool quota = chunk.tokens > 1 && tau > 0 && !(plan_.hard && plan_.max_tau < 1);
  if (!quota) return;
  const std::vector<double> run = curve_.ExpertsRun(*cost_, tau);
  for (size_t m = 0; m < run.size(); ++m) {
    if (!bounds_.always_dense(m)) weight_.push_back(run[m]);
  }
}

double GenerationBudget::tau(size_t module) const {
  if (plan_.kind != ComputePlan::Kind::kSteered) {
    return plan_.module_tau.empty() ? 0 : plan_.module_tau[module];
  }
  if (bounds_.always_dense(module)) return 0;
  return weight_.empty() ? tau_ : plan_.min_tau;
}

uint64_t GenerationBudget::Cap(size_t module) const {
  if (!plan_.hard) return kNoCap;
  const MoeCost& cost = cost_->moe[module];
  const uint64_t left = Left(available_, chunk_.tokens * bounds_.Floor(module + 1));
  const uint64_t all = chunk_.tokens * cost.experts;
  const uint64_t router = chunk_.tokens * cost.router_flops;
  if (all * cost.pair_flops + (tau_ > 0 ? router : 0) <= left) return kNoCap;
  return cost.pair_flops == 0 ? kNoCap : Left(left, router) / cost.pair_flops;
}

uint64_t GenerationBudget::max_pairs(size_t module) const {
  if (plan_.kind != ComputePlan::Kind::kSteered || bounds_.always_dense(module)) return kNoCap;
  const uint64_t cap = Cap(module);
  if (weight_.empty()) return cap;
  const size_t at = place_[module];
  const double experts = ShareExperts(std::span(gated_).subspan(at), std::span(weight_).subspan(at),
                                      due_ / double(chunk_.tokens));
  const auto quota = static_cast<uint64_t>(std::llround(experts * double(chunk_.tokens)));
  return std::min(quota, cap);
}

void GenerationBudget::Spend(size_t module, uint64_t pairs, bool routed, double effective_tau) {
  const MoeCost& cost = cost_->moe[module];
  const uint64_t experts = pairs * cost.pair_flops;
  const uint64_t spent = experts + (routed ? chunk_.tokens * cost.router_flops : 0);
  if (!bounds_.always_dense(module)) {
    capped_ |= pairs >= Cap(module);
    if (!weight_.empty()) {
      const uint64_t quota = max_pairs(module);
      bounded_ |= pairs > quota || (pairs < quota && plan_.min_tau > 0);
      due_ -= double(experts);
    }
    gated_flops_ += experts;
    gated_tau_ += effective_tau;
  }
  pairs_[module] += pairs;
  moe_flops_ += spent;
  available_ = Left(available_, spent);
  // In this form the mean of equal taus is exactly that tau.
  chunk_tau_ += (effective_tau - chunk_tau_) / double(module + 1);
}

void GenerationBudget::Book(const TokenSpan& ran) {
  flops_ += cost_->FixedFlops(ran) + moe_flops_;
  dense_flops_ += cost_->DenseFlops(ran);
  tokens_ += ran.tokens;
  heads_ += ran.heads;
  if (tokens_ > 0) mean_tau_ += (chunk_tau_ - mean_tau_) * (double(ran.tokens) / double(tokens_));
}

void GenerationBudget::End() {
  const double tau = gated_.empty() ? 0 : gated_tau_ / double(gated_.size());
  if (plan_.kind == ComputePlan::Kind::kSteered && tau > 0 && !capped_) {
    curve_.Learn(tau, chunk_.tokens, gated_flops_);
  }
  Book(chunk_);
}

absl::Status GenerationBudget::GiveUp(size_t module, uint64_t needed) {
  const MoeCost& cost = cost_->moe[module];
  const uint64_t missing = (needed - max_pairs(module)) * cost.pair_flops;
  Spend(module, 0, /*routed=*/true, max_tau());
  TokenSpan ran = chunk_;
  ran.heads = 0;
  Book(ran);
  return absl::FailedPreconditionError(
      fmt::format("max_flops {} is below the floor that max_tau {} sets: after {} FLOPs, layer {} "
                  "alone needs {} more",
                  plan_.target_flops, plan_.max_tau, flops_, cost.layer, missing));
}

void GenerationBudget::Report(Usage& usage) const {
  usage.flops = flops_;
  usage.dense_flops = dense_flops_;
  usage.tau = mean_tau_;
  usage.layer_tokens = tokens_;
  usage.layers.clear();
  for (size_t m = 0; m < cost_->moe.size(); ++m) {
    const MoeCost& cost = cost_->moe[m];
    usage.layers.push_back({cost.layer, cost.module, cost.experts, pairs_[m]});
  }
  usage.budget_clamped |= plan_.clamped;
  if (plan_.kind == ComputePlan::Kind::kSteered && !plan_.hard && bounded_) {
    const double asked = plan_.target_fraction * double(dense_flops_);
    usage.budget_clamped |= std::abs(double(flops_) - asked) > kTolerance * asked;
  }
}

}  // namespace dimmer
