// Predicts how much each expert would contribute to a token: |W_b relu(W_a z)| (SADMoE,
// Section 3.3).
//
// Thread safety: immutable once made.
#ifndef DIMMER_ENGINE_LAYERS_ROUTER_H_
#define DIMMER_ENGINE_LAYERS_ROUTER_H_

#include <cstddef>
#include <cstdint>

#include "engine/layers/linear.h"
#include "engine/layers/workspace.h"
#include "engine/util/thread_pool.h"

namespace dimmer {

class Router {
 public:
  Router() = default;
  Router(size_t d, size_t width, size_t experts, WeightFormat format)
      : first_(width, d, format), second_(experts, width, format) {}

  Linear& first() { return first_; }    // W_a [width, d], no bias
  Linear& second() { return second_; }  // W_b [experts, width], no bias

  // scores [rows, experts] with stride PaddedWidth(experts).
  void Apply(const RowsView& z, size_t rows, float* scores, ThreadPool& pool,
             Workspace& workspace) const {
    const size_t stride = PaddedWidth(first_.outputs());
    float* hidden = workspace.Floats(Workspace::kRouterHidden, rows * stride);
    first_.Apply(z, rows, Activation::kRelu, hidden, stride, pool);
    second_.Apply({hidden, stride, nullptr}, rows, Activation::kAbs, scores,
                  PaddedWidth(second_.outputs()), pool);
  }

  size_t experts() const { return second_.outputs(); }
  size_t bytes() const { return first_.bytes() + second_.bytes(); }
  uint64_t flops() const { return first_.flops() + second_.flops(); }  // per token

 private:
  Linear first_;
  Linear second_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_ROUTER_H_
