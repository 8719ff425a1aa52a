#include "training/graph_scorer.h"

#include <exception>
#include <utility>

#include "engine/util/status.h"
#include "training/runtime.h"

namespace dimmer {
namespace {

using torch::Tensor;

class Scorer {
 public:
  Scorer(std::shared_ptr<const Gpt2Trainee> model, std::vector<Router> routers, uint32_t experts)
      : model_(std::move(model)), routers_(std::move(routers)), experts_(experts) {}

  WindowScores Score(std::span<const std::vector<int32_t>> windows, double tau) const {
    PackedBatch batch;
    for (const std::vector<int32_t>& window : windows) {
      Example example;
      example.ids.assign(window.begin(), window.end() - 1);
      example.next_ids.assign(window.begin() + 1, window.end());
      batch.Add(example);
    }
    WindowScores scores;
    scores.expert_runs.assign(routers_.size(), 0);
    const bool gated = tau > 0 && !routers_.empty();
    const std::vector<float> losses = model_->TokenLosses(
        batch, gated ? [&](size_t layer, const Tensor& input) {
          return Mask(layer, input, tau, scores);
        } : Gpt2Trainee::Gate());
    for (size_t s = 0; s + 1 < batch.offsets.size(); ++s) {
      double nats = 0;
      for (int32_t t = batch.offsets[s]; t < batch.offsets[s + 1]; ++t) nats += losses[t];
      scores.nats.push_back(nats);
    }
    CountFlops(batch, gated, scores);
    return scores;
  }

 private:
  Tensor Mask(size_t layer, const Tensor& input, double tau, WindowScores& scores) const {
    const Tensor router = RouterScores(routers_[layer], input);  // [tokens, experts]
    const Tensor best = std::get<0>(router.max(1, true));
    const Tensor run = router.ge(best * tau);
    scores.expert_runs[layer] += run.sum().item<int64_t>();
    const int64_t size = model_->layout().hidden / experts_;
    return run.to(torch::kFloat32).repeat_interleave(size, 1);
  }

  void CountFlops(const PackedBatch& batch, bool gated, WindowScores& scores) const {
    const ModelLayout& layout = model_->layout();
    const auto d = static_cast<uint64_t>(layout.width);
    const auto layers = static_cast<uint64_t>(layout.layers());
    const auto tokens = static_cast<uint64_t>(batch.tokens());
    uint64_t pairs = 0;  // of a query and a key up to its own
    for (size_t s = 0; s + 1 < batch.offsets.size(); ++s) {
      const uint64_t length = batch.offsets[s + 1] - batch.offsets[s];
      pairs += length * (length + 1) / 2;
    }
    const uint64_t pair_flops = 4 * d * static_cast<uint64_t>(layout.hidden) / experts_;
    const uint64_t others = layers * (tokens * 8 * d * d + pairs * 4 * d) +
                            tokens * 2 * d * static_cast<uint64_t>(layout.vocab);
    scores.dense_flops = others + layers * tokens * pair_flops * experts_;
    if (!gated) {
      for (uint64_t& runs : scores.expert_runs) runs = tokens * experts_;
      scores.flops = scores.dense_flops;
      return;
    }
    scores.flops = others;
    for (size_t l = 0; l < routers_.size(); ++l) {
      const uint64_t router = 2 * (routers_[l].w1.size() + routers_[l].w2.size());
      scores.flops += scores.expert_runs[l] * pair_flops + tokens * router;
    }
  }

  std::shared_ptr<const Gpt2Trainee> model_;
  std::vector<Router> routers_;
  uint64_t experts_;
};

}  // namespace

WindowScorer GraphScorer(std::shared_ptr<const Gpt2Trainee> model, std::vector<Router> routers,
                         uint32_t experts) {
  const auto scorer =
      std::make_shared<const Scorer>(std::move(model), std::move(routers), experts);
  return [scorer](std::span<const std::vector<int32_t>> windows,
                  double tau) -> absl::StatusOr<WindowScores> {
    try {
      return scorer->Score(windows, tau);
    } catch (const std::exception& error) {  // libtorch's, e.g. out of memory
      return absl::InternalError(fmt::format("scoring: {}", WhatOf(error)));
    }
  };
}

}  // namespace dimmer
