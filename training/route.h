// Trains the routers that predict each expert's output norm (ALGORITHM.md, section 3).
#ifndef DIMMER_TRAINING_ROUTE_H_
#define DIMMER_TRAINING_ROUTE_H_

#include <absl/status/statusor.h>
#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "training/batch.h"
#include "training/options.h"
#include "training/trainee.h"

namespace dimmer {

// Scores of layer's experts are |w2 relu(w1 z)|.
struct Router {
  std::vector<float> w1;  // [width, d]
  std::vector<float> w2;  // [experts, width]
  double explained = 0;   // 1 - MSE / variance of the norms, on the check tokens
};

// One FFN of the frozen model, neurons in expert order.
struct FfnWeights {
  torch::Tensor gate;         // [d_ff, d], whatever the checkpoint's orientation; none: not gated
  torch::Tensor up, up_bias;  // [d_ff, d], [d_ff]; the bias may be none
  torch::Tensor down;         // [d, d_ff]
  Activation activation = Activation::kRelu;
};

// || act(z W1_n + b1_n) W2_n ||_2, or || (act(z G_n) * z W1_n) W2_n ||_2, of every token and expert
// [tokens, experts], before b2; by the Gram matrices W2_n W2_n^T.
torch::Tensor ExpertNorms(const FfnWeights& ffn, uint32_t experts, const torch::Tensor& inputs);

// Which tokens routers see, and of what model.
struct CollectOptions {
  uint64_t max_tokens = 0;  // as many rows, in a seeded order, as fit
  uint64_t seed = 1;
  // Not empty: of a model that runs `experts` experts a layer as these routers, one a layer, say.
  // Every chunk of rows has a tau of its own, between 0.01 and 0.5.
  std::span<const Router> gates = {};
  uint32_t experts = 0;
};
// Inputs of all FFNs for `examples`, [layers] of [tokens, d].
std::vector<torch::Tensor> CollectFfnInputs(const Trainee& model, std::span<const Example> examples,
                                            const CollectOptions& options, uint32_t workers);
// Tokens of the rows that it takes.
uint64_t TokensTaken(std::span<const Example> examples, const RouteOptions& options);

// Regression by MSE on one layer, from scratch or on from the router `start` (null: from scratch).
// Runs on the calling thread; different layers may run at the same time. Deterministic.
// `on_progress(batches done, in all, recent MSE over the variance)`.
using RouteProgress = std::function<void(uint64_t, uint64_t, double)>;
Router TrainRouter(const FfnWeights& ffn, const torch::Tensor& inputs,
                   const torch::Tensor& check_inputs, int64_t layer, const RouteOptions& options,
                   const Router* start, const RouteProgress& on_progress);

// The FFN of a layer of `model`.
FfnWeights FfnOf(const Trainee& model, int64_t layer);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_ROUTE_H_
