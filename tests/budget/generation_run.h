// A made-up causal model with experts and random scores, that a GenerationBudget steers.
#ifndef DIMMER_TESTS_BUDGET_GENERATION_RUN_H_
#define DIMMER_TESTS_BUDGET_GENERATION_RUN_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "engine/budget/generation_budget.h"

namespace dimmer {

// Its scores: an expert's share of its token's best is u^(skew of the token), u uniform, so that
// the larger the skew, the fewer experts run at a tau.
struct SyntheticModel {
  CostModel cost;
  Calibration calibration;
  double skew = 8;
  double spread = 0.3;  // of the logarithm of a token's skew

  // The share of experts that run at `tau` is 1 - tau^(1 / skew), on average over tokens.
  static double Share(double tau, double skew) { return 1 - std::pow(tau, 1 / skew); }
};

// In the proportions of a small GPT-2: 4 layers, d 256, 64 experts of 16, vocabulary 2048.
inline CostModel SmallGpt2Cost() {
  CostModel cost{.token_flops = 4 * 4 * 2 * 256 * 256,
                 .attention_flops = 4 * 4 * 256,
                 .sequence_flops = 2 * 256 * 2048,
                 .moe = {},
                 .causal = true};
  for (uint32_t layer = 0; layer < 4; ++layer) {
    cost.moe.push_back({.layer = layer,
                        .experts = 64,
                        .pair_flops = 4 * 256 * 16,
                        .router_flops = 2 * 256 * 32 + 2 * 32 * 64});
  }
  return cost;
}

// A calibration for tokens of `skew`, with every number of experts run off by the factor `off`.
inline Calibration CalibrationFor(const CostModel& cost, double skew, double off) {
  Calibration calibration{.metric = "perplexity", .points = {}};
  for (const double tau : {0.0, 0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0}) {
    CalibrationPoint point{.tau = tau, .experts_run = {}};
    for (const MoeCost& module : cost.moe) {
      const double experts = module.experts;
      const double run = std::max(1.0, experts * SyntheticModel::Share(tau, skew));
      point.experts_run.push_back(tau == 0 ? experts : std::min(experts, run * off));
    }
    calibration.points.push_back(point);
  }
  return calibration;
}

// Runs a generation as a decoder does: the prompt in chunks, then token by token.
class GenerationRun {
 public:
  GenerationRun(const SyntheticModel& model, const ComputePlan& plan, const GenerationSize& size,
                uint64_t seed)
      : model_(model),
        size_(size),
        budget_(plan, model.cost, model.calibration, size),
        random_(seed) {}

  // False: the budget ended it. After `stop_after` new tokens the text is over.
  bool Run(uint64_t stop_after) {
    for (uint64_t first = 0; first < size_.prompt_tokens; first += 64) {
      const uint64_t tokens = std::min<uint64_t>(64, size_.prompt_tokens - first);
      if (!Chunk({first, tokens, first + tokens == size_.prompt_tokens ? 1u : 0u})) return false;
    }
    for (new_tokens_ = 1; new_tokens_ < std::min(stop_after, size_.max_new_tokens); ++new_tokens_) {
      if (!Chunk({size_.prompt_tokens + new_tokens_ - 1, 1, 1})) return false;
    }
    return true;
  }

  // A text of which every position but the last runs the head.
  bool Score() {
    const uint64_t all = size_.All().tokens;
    for (uint64_t first = 0; first < all; first += 64) {
      const uint64_t tokens = std::min<uint64_t>(64, all - first);
      if (!Chunk({first, tokens, tokens})) return false;
    }
    return true;
  }

  const GenerationBudget& budget() const { return budget_; }
  uint64_t new_tokens() const { return new_tokens_; }
  const absl::Status& status() const { return status_; }
  const std::vector<double>& taus() const { return taus_; }  // of each chunk's first module

 private:
  bool Chunk(const TokenSpan& chunk) {
    if (!budget_.Begin(chunk)) return false;
    for (size_t m = 0; m < model_.cost.moe.size(); ++m) {
      const double tau = budget_.tau(m);
      const uint64_t cap = budget_.max_pairs(m);
      if (m == 0) taus_.push_back(tau);
      const uint64_t all = chunk.tokens * model_.cost.moe[m].experts;
      if (tau == 0 && cap == GenerationBudget::kNoCap) {
        budget_.Spend(m, all, false, 0);
        continue;
      }
      const std::vector<double> ratios = Ratios(chunk.tokens, model_.cost.moe[m].experts);
      const auto at_least = [&](double least) {
        return uint64_t(std::partition_point(ratios.begin(), ratios.end(),
                                             [&](double r) { return r >= least; }) -
                        ratios.begin());
      };
      const uint64_t willing = at_least(tau);
      if (cap == GenerationBudget::kNoCap) {
        budget_.Spend(m, willing, true, tau);
        continue;
      }
      const uint64_t must = budget_.max_tau() < 1 ? at_least(budget_.max_tau()) : chunk.tokens;
      if (budget_.hard() && must > cap) {
        status_ = budget_.GiveUp(m, must);
        return false;
      }
      const uint64_t run = std::max(must, std::min(willing, cap));
      budget_.Spend(m, run, true, run == all ? 0 : ratios[run - 1]);
    }
    budget_.End();
    return true;
  }

  // Of all pairs, best first.
  std::vector<double> Ratios(uint64_t tokens, uint32_t experts) {
    std::vector<double> ratios;
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform;
    for (uint64_t t = 0; t < tokens; ++t) {
      const double skew = model_.skew * std::exp(model_.spread * normal(random_));
      ratios.push_back(1);  // the best
      for (uint32_t n = 1; n < experts; ++n) {
        ratios.push_back(std::pow(uniform(random_), skew));
      }
    }
    std::sort(ratios.rbegin(), ratios.rend());
    return ratios;
  }

  const SyntheticModel& model_;
  GenerationSize size_;
  GenerationBudget budget_;
  std::mt19937_64 random_;
  uint64_t new_tokens_ = 0;
  absl::Status status_;
  std::vector<double> taus_;
};

}  // namespace dimmer

#endif  // DIMMER_TESTS_BUDGET_GENERATION_RUN_H_
