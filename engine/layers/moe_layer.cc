#include "engine/layers/moe_layer.h"

#include <algorithm>

#include "engine/kernels/rowwise.h"
#include "engine/layers/grouping.h"
#include "engine/layers/partition.h"

namespace dimmer {
namespace {

bool WantsDense(const MoeSequence& sequence, size_t experts) {
  if (!sequence.quota) return sequence.tau == 0;
  // A quota of everything needs no router, unless the operator's min_tau holds some experts back.
  return sequence.quota->min_tau == 0 && sequence.quota->pairs >= sequence.rows.count * experts;
}

void Count(std::span<const uint8_t> mask, size_t experts, uint64_t run, ModuleStats& stats) {
  ++stats.experts_per_token[run];
  for (size_t n = 0; n < experts; ++n) stats.expert_tokens[n] += mask[n];
}

// Rows past which a group no longer costs in proportion: consecutive experts up to this many
// neurons form one step of the dense path.
size_t ExpertsPerStep(const PackedFfn& ffn) {
  constexpr size_t kNeurons = 192;
  return std::clamp<size_t>(kNeurons / ffn.expert_size, 1, ffn.experts);
}

}  // namespace

void MoeLayer::Apply(const float* z, const float* residual, float* out,
                     std::span<MoeSequence> sequences, ThreadPool& pool, Workspace& workspace,
                     ModuleStats* stats) const {
  const size_t stride = PaddedWidth(ffn_.d);
  const size_t experts = ffn_.experts;
  std::vector<uint32_t>& dense = workspace.dense_rows;
  std::vector<uint32_t>& routed = workspace.routed_rows;
  dense.clear();
  routed.clear();
  size_t rows = 0;
  for (MoeSequence& sequence : sequences) {
    const SequenceRows& own = sequence.rows;
    rows = std::max(rows, own.first + own.count);
    sequence.routed = router_.has_value() && !WantsDense(sequence, experts);
    std::vector<uint32_t>& list = sequence.routed ? routed : dense;
    for (size_t r = 0; r < own.count; ++r) list.push_back(static_cast<uint32_t>(own.first + r));
    if (sequence.routed) continue;
    sequence.pairs = own.count * experts;
    sequence.effective_tau = 0;
    if (stats == nullptr) continue;
    stats->experts_per_token[experts] += own.count;
    for (uint64_t& count : stats->expert_tokens) count += own.count;
  }
  for (const MoeSequence& sequence : sequences) {
    for (size_t r = 0; r < sequence.rows.count; ++r) {
      const size_t at = (sequence.rows.first + r) * stride;
      AddRow(residual + at, ffn_.b2.data(), ffn_.d, out + at);
    }
  }
  if (!dense.empty()) {
    const bool all = dense.size() == rows;
    RunDense({z, stride, out, stride, all ? nullptr : dense.data(), dense.size()}, pool, workspace);
  }
  if (!routed.empty()) {
    float* scores = workspace.Floats(Workspace::kScores, routed.size() * PaddedWidth(experts));
    router_->Apply({z, stride, routed.data()}, routed.size(), scores, pool, workspace);
    Gate(sequences, scores, workspace, stats);
    RunGrouped({z, stride, out, stride, routed.data(), routed.size()}, pool, workspace);
  }
}

// Fills workspace.mask [routed rows, experts] and the sequences' outcomes.
void MoeLayer::Gate(std::span<MoeSequence> sequences, const float* scores, Workspace& workspace,
                    ModuleStats* stats) const {
  const size_t experts = ffn_.experts;
  const size_t stride = PaddedWidth(experts);
  workspace.mask.resize(workspace.routed_rows.size() * experts);
  uint8_t* masks = workspace.mask.data();
  size_t at = 0;
  for (MoeSequence& sequence : sequences) {
    if (!sequence.routed) continue;
    const size_t tokens = sequence.rows.count;
    const std::span<uint8_t> mask(masks + at * experts, tokens * experts);
    const float* own = scores + at * stride;
    uint64_t non_finite = 0;
    if (sequence.quota) {
      const QuotaChoice choice = GateQuota(*sequence.quota, own, stride, tokens, experts, mask);
      sequence.pairs = choice.run;
      sequence.effective_tau = choice.tau;
      sequence.bounded = choice.bounded;
      non_finite = choice.non_finite;
      if (sequence.quota->hard && choice.needed > sequence.quota->pairs) {
        sequence.needed = choice.needed;
        sequence.pairs = 0;
        std::fill(mask.begin(), mask.end(), uint8_t{0});
      }
    } else {
      const TokenGate gate{gate_.kind, sequence.tau, gate_.top_k};
      sequence.pairs = 0;
      sequence.effective_tau = sequence.tau;
      for (size_t t = 0; t < tokens; ++t) {
        const TokenChoice choice = GateToken(gate, std::span(own + t * stride, experts),
                                             mask.subspan(t * experts, experts));
        sequence.pairs += choice.run;
        non_finite += choice.non_finite;
      }
    }
    at += tokens;
    if (stats == nullptr || sequence.needed > 0) continue;
    stats->non_finite_scores += non_finite;
    for (size_t t = 0; t < tokens; ++t) {
      const std::span<const uint8_t> token = mask.subspan(t * experts, experts);
      Count(token, experts, std::count(token.begin(), token.end(), uint8_t{1}), *stats);
    }
  }
}

void MoeLayer::RunDense(const ExpertRows& rows, ThreadPool& pool, Workspace& workspace) const {
  const size_t step = ExpertsPerStep(ffn_);
  const size_t steps = (ffn_.experts + step - 1) / step;
  const size_t stride = HiddenStride(ffn_, step);
  const auto experts_of = [&](size_t s) { return std::min(step, ffn_.experts - s * step); };
  if (pool.threads() > 1 && rows.count < kRowsToSplit * pool.threads()) {
    // Few rows: every weight is read once, by one thread.
    float* hidden = workspace.Floats(Workspace::kHidden, steps * rows.count * stride);
    pool.ParallelFor(steps, [&](size_t s, size_t) {
      ExpertsHidden(ffn_, s * step, experts_of(s), rows, hidden + s * rows.count * stride);
    });
    const size_t blocks = std::min(PanelBlocks(pool.threads()), (ffn_.panels() + 1) / 2);
    pool.ParallelFor(blocks, [&](size_t block, size_t) {
      const Range pairs = RangeOf((ffn_.panels() + 1) / 2, blocks, block);
      const size_t first = 2 * pairs.begin;
      const size_t panels = std::min(2 * pairs.end, ffn_.panels()) - first;
      for (size_t s = 0; s < steps; ++s) {
        ExpertsOut(ffn_, s * step, experts_of(s), rows, hidden + s * rows.count * stride, first,
                   panels);
      }
    });
    return;
  }
  float* scratch = workspace.Floats(Workspace::kHidden, pool.threads() * kMaxTileRows * stride);
  const size_t blocks = RowBlocks(rows.count, pool.threads());
  pool.ParallelFor(blocks, [&](size_t block, size_t thread) {
    const Range range = RangeOf(rows.count, blocks, block);
    ExpertRows part = rows;
    part.count = range.size();
    if (rows.rows != nullptr) {
      part.rows += range.begin;
    } else {
      part.z += range.begin * rows.z_stride;
      part.out += range.begin * rows.out_stride;
    }
    for (size_t s = 0; s < steps; ++s) {
      RunExperts(ffn_, s * step, experts_of(s), part, scratch + thread * kMaxTileRows * stride);
    }
  });
}

void MoeLayer::RunGrouped(const ExpertRows& rows, ThreadPool& pool, Workspace& workspace) const {
  const size_t experts = ffn_.experts;
  const size_t stride = HiddenStride(ffn_, 1);
  const bool by_experts = pool.threads() > 1 && rows.count < kRowsToSplit * pool.threads();
  const size_t blocks = by_experts ? 1 : pool.threads();
  workspace.group_rows.resize(rows.count * experts);
  workspace.group_offsets.resize(blocks * (experts + 1));
  const auto group = [&](size_t block) {
    const Range range = RangeOf(rows.count, blocks, block);
    GroupByExpert(std::span(workspace.mask).subspan(range.begin * experts, range.size() * experts),
                  std::span(rows.rows + range.begin, range.size()), experts,
                  std::span(workspace.group_offsets).subspan(block * (experts + 1), experts + 1),
                  std::span(workspace.group_rows).subspan(range.begin * experts));
    return range;
  };
  const auto group_of = [&](size_t block, const Range& range, size_t n) {
    const uint32_t* offsets = workspace.group_offsets.data() + block * (experts + 1);
    ExpertRows part = rows;
    part.rows = workspace.group_rows.data() + range.begin * experts + offsets[n];
    part.count = offsets[n + 1] - offsets[n];
    return part;
  };
  if (!by_experts) {
    float* scratch = workspace.Floats(Workspace::kHidden, pool.threads() * kMaxTileRows * stride);
    pool.ParallelFor(blocks, [&](size_t block, size_t thread) {
      const Range range = group(block);
      for (size_t n = 0; n < experts; ++n) {
        const ExpertRows part = group_of(block, range, n);
        if (part.count > 0) {
          RunExperts(ffn_, n, 1, part, scratch + thread * kMaxTileRows * stride);
        }
      }
    });
    return;
  }
  // Few rows: every expert's weights are read once, by one thread.
  const Range range = group(0);
  const uint32_t* offsets = workspace.group_offsets.data();
  float* hidden = workspace.Floats(Workspace::kHidden, offsets[experts] * stride);
  pool.ParallelFor(experts, [&](size_t n, size_t) {
    const ExpertRows part = group_of(0, range, n);
    if (part.count > 0) ExpertsHidden(ffn_, n, 1, part, hidden + offsets[n] * stride);
  });
  const size_t parts = std::min(PanelBlocks(pool.threads()), ffn_.panels());
  pool.ParallelFor(parts, [&](size_t index, size_t) {
    const Range panels = RangeOf(ffn_.panels(), parts, index);
    for (size_t n = 0; n < experts; ++n) {
      const ExpertRows part = group_of(0, range, n);
      if (part.count == 0) continue;
      ExpertsOut(ffn_, n, 1, part, hidden + offsets[n] * stride, panels.begin, panels.size());
    }
  });
}

}  // namespace dimmer
