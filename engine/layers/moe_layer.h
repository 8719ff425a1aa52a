// A feed-forward layer whose experts run as each sequence's budget says: dense sequences, different
// taus and quotas side by side in one batch, none of which changes another's bits.
//
// Thread safety: immutable once made; Apply keeps its state in the caller's workspace.
#ifndef DIMMER_ENGINE_LAYERS_MOE_LAYER_H_
#define DIMMER_ENGINE_LAYERS_MOE_LAYER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "engine/kernels/expert_ffn.h"
#include "engine/layers/gate.h"
#include "engine/layers/router.h"
#include "engine/layers/self_attention.h"
#include "engine/layers/workspace.h"
#include "engine/models/model.h"

namespace dimmer {

// What one sequence may run in this layer, and what it ran.
struct MoeSequence {
  // In.
  SequenceRows rows;
  double tau = 0;                  // 0: dense, and the router is not run
  std::optional<QuotaGate> quota;  // in place of tau
  // Out.
  uint64_t pairs = 0;   // (token, expert) pairs that ran
  bool routed = false;  // the router ran
  double effective_tau = 0;
  bool bounded = false;  // a bound on tau moved a quota
  // A hard quota that max_tau does not allow: nothing ran, this many pairs would have had to.
  uint64_t needed = 0;
};

class MoeLayer {
 public:
  MoeLayer() = default;
  // Without a router the layer is dense only, whatever is asked.
  MoeLayer(PackedFfn ffn, std::optional<Router> router, GateSpec gate)
      : ffn_(std::move(ffn)), router_(std::move(router)), gate_(gate) {}

  // out[t] = residual[t] + b2 + sum over t's experts of act(z[t] W1_n + b1_n) W2_n, for the rows of
  // all sequences. z, residual, out: stride PaddedWidth(d); residual may be z or out; out is not z.
  // The experts that a token runs are added in ascending order to a fixed first value, so that all
  // of them, in whatever groups, give the dense path's bits. `stats` may be null.
  void Apply(const float* z, const float* residual, float* out, std::span<MoeSequence> sequences,
             ThreadPool& pool, Workspace& workspace, ModuleStats* stats) const;

  size_t experts() const { return ffn_.experts; }
  bool has_router() const { return router_.has_value(); }
  size_t bytes() const { return ffn_.bytes() + (router_ ? router_->bytes() : 0); }
  uint64_t router_flops() const { return router_ ? router_->flops() : 0; }

 private:
  void Gate(std::span<MoeSequence> sequences, const float* scores, Workspace& workspace,
            ModuleStats* stats) const;
  void RunDense(const ExpertRows& rows, ThreadPool& pool, Workspace& workspace) const;
  void RunGrouped(const ExpertRows& rows, ThreadPool& pool, Workspace& workspace) const;

  PackedFfn ffn_;
  std::optional<Router> router_;
  GateSpec gate_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_MOE_LAYER_H_
