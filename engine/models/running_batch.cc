#include "engine/models/running_batch.h"

#include <algorithm>
#include <cstring>

#include "engine/util/status.h"

namespace dimmer {
namespace {

absl::Status CheckIds(std::string_view what, std::span<const int32_t> ids, uint32_t limit) {
  for (size_t t = 0; t < ids.size(); ++t) {
    if (ids[t] >= 0 && static_cast<uint32_t>(ids[t]) < limit) continue;
    return absl::InvalidArgumentError(
        fmt::format("{}: found {} at position {}, expected 0 to {}", what, ids[t], t, limit - 1));
  }
  return absl::OkStatus();
}

}  // namespace

RunningBatch::RunningBatch(const ModelInfo& info, uint32_t type_vocab_size,
                           std::span<Sequence* const> sequences, StepStats* stats)
    : info_(info), stats_(stats) {
  const CostModel& cost = info.cost;
  const size_t modules = cost.moe.size();
  for (Sequence* sequence : sequences) {
    sequence->finished = false;
    sequence->status = absl::OkStatus();
    if (absl::Status status = Check(*sequence, type_vocab_size); !status.ok()) {
      Stop(*sequence, std::move(status));
      continue;
    }
    Running running{sequence,
                    nullptr,
                    std::vector<uint64_t>(modules),
                    std::make_unique<bool[]>(modules),
                    0,
                    false,
                    absl::OkStatus()};
    if (sequence->plan.kind == ComputePlan::Kind::kQuota && modules > 0) {
      running.quota = std::make_unique<QuotaController>(
          sequence->plan, CostOf(*sequence), static_cast<uint32_t>(sequence->ids.size()));
    }
    running_.push_back(std::move(running));
  }
  Layout();
  if (stats_ == nullptr) return;
  stats_->tokens += tokens_;
  stats_->prompt_tokens += tokens_;
  stats_->modules.resize(modules);
  for (size_t m = 0; m < modules; ++m) {
    stats_->modules[m].expert_tokens.resize(cost.moe[m].experts);
    stats_->modules[m].experts_per_token.resize(cost.moe[m].experts + 1);
  }
}

absl::Status RunningBatch::Check(const Sequence& sequence, uint32_t type_vocab_size) const {
  const size_t tokens = sequence.ids.size();
  if (tokens == 0 || tokens > info_.max_tokens) {
    return absl::InvalidArgumentError(
        fmt::format("found {} tokens, expected 1 to {}", tokens, info_.max_tokens));
  }
  DIMMER_RETURN_IF_ERROR(CheckIds("token id", sequence.ids, info_.vocab_size));
  if (!sequence.type_ids.empty() && sequence.type_ids.size() != tokens) {
    return absl::InvalidArgumentError(
        fmt::format("found {} token type ids, expected {}", sequence.type_ids.size(), tokens));
  }
  DIMMER_RETURN_IF_ERROR(CheckIds("token type id", sequence.type_ids, type_vocab_size));
  if (std::find(info_.tasks.begin(), info_.tasks.end(), sequence.task) == info_.tasks.end()) {
    return absl::InvalidArgumentError(
        fmt::format("{} has no classification head: it only embeds", info_.architecture));
  }
  const ComputePlan& plan = sequence.plan;
  const size_t modules = info_.cost.moe.size();
  const bool tau = plan.kind == ComputePlan::Kind::kTau;
  const size_t planned = tau ? plan.module_tau.size() : plan.module_weight.size();
  if (planned != modules && !(tau && planned == 0)) {
    return absl::InvalidArgumentError(
        fmt::format("plan: found {} modules, expected {}", planned, modules));
  }
  return absl::OkStatus();
}

const CostModel& RunningBatch::CostOf(const Sequence& sequence) {
  if (sequence.task != Task::kEmbedding || info_.cost.sequence_flops == 0) return info_.cost;
  if (headless_ == nullptr) {
    headless_ = std::make_unique<const CostModel>(info_.cost.WithoutHead());
  }
  return *headless_;
}

void RunningBatch::Layout() {
  rows_.clear();
  moe_.clear();
  tokens_ = 0;
  for (const Running& running : running_) {
    rows_.push_back({tokens_, running.sequence->ids.size()});
    tokens_ += rows_.back().count;
    moe_.emplace_back().rows = rows_.back();
  }
}

void RunningBatch::DropStopped(float* x, size_t stride) {
  const auto now = std::chrono::steady_clock::now();
  size_t kept = 0;
  size_t row = 0;
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i].sequence;
    if (!running_[i].failure.ok()) {
      Stop(sequence, running_[i].failure);
    } else if (sequence.cancelled != nullptr &&
               sequence.cancelled->load(std::memory_order_relaxed)) {
      Stop(sequence, RequestCancelled());
    } else if (now >= sequence.deadline) {
      Stop(sequence, RequestTimedOut());
    } else {
      if (rows_[i].first != row) {
        std::memmove(x + row * stride, x + rows_[i].first * stride,
                     rows_[i].count * stride * sizeof(float));
      }
      row += rows_[i].count;
      if (kept != i) running_[kept] = std::move(running_[i]);
      ++kept;
    }
  }
  if (kept == running_.size()) return;
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(kept), running_.end());
  Layout();
}

void RunningBatch::PlanModule(std::optional<size_t> module) {
  for (size_t i = 0; i < running_.size(); ++i) {
    MoeSequence next;
    next.rows = rows_[i];
    const ComputePlan& plan = running_[i].sequence->plan;
    if (module && running_[i].quota != nullptr) {
      next.quota =
          QuotaGate{running_[i].quota->PairsFor(*module), plan.min_tau, plan.max_tau, plan.hard};
    } else if (module && !plan.module_tau.empty()) {
      next.tau = plan.module_tau[*module];
    }
    moe_[i] = next;
  }
}

ModuleStats* RunningBatch::stats(std::optional<size_t> module) {
  return module && stats_ != nullptr ? &stats_->modules[*module] : nullptr;
}

void RunningBatch::AccountModule(std::optional<size_t> module) {
  if (!module) return;
  const CostModel& cost = info_.cost;
  for (size_t i = 0; i < running_.size(); ++i) {
    Running& running = running_[i];
    const MoeSequence& ran = moe_[i];
    running.pairs[*module] = ran.pairs;
    running.routed[*module] = ran.routed;
    running.tau_sum += ran.effective_tau;
    running.bounded |= ran.bounded;
    if (ran.needed > 0) {
      const uint64_t short_of = (ran.needed - ran.quota->pairs) * cost.moe[*module].pair_flops;
      const MoeCost& at = cost.moe[*module];
      running.failure = absl::FailedPreconditionError(fmt::format(
          "max_flops {} is below the floor that max_tau {} sets: layer {} alone needs {} FLOPs "
          "more",
          running.sequence->plan.target_flops, running.sequence->plan.max_tau, at.layer, short_of));
    } else if (running.quota != nullptr) {
      running.quota->Spend(*module, ran.pairs);
    }
  }
}

void RunningBatch::Finish(size_t i) {
  Running& running = running_[i];
  Sequence& sequence = *running.sequence;
  const CostModel& cost = CostOf(sequence);
  const uint64_t tokens = sequence.ids.size();
  const size_t modules = cost.moe.size();
  Usage& usage = sequence.usage;
  usage = Usage();
  usage.prompt_tokens = static_cast<uint32_t>(tokens);
  usage.flops =
      cost.Flops(tokens, running.pairs, std::span<const bool>(running.routed.get(), modules));
  usage.dense_flops = cost.DenseFlops(tokens);
  usage.tau = modules == 0 ? 0 : running.tau_sum / static_cast<double>(modules);
  usage.budget_clamped = sequence.plan.clamped || running.bounded;
  for (size_t m = 0; m < modules; ++m) {
    usage.layers.push_back(
        {cost.moe[m].layer, cost.moe[m].module, cost.moe[m].experts, running.pairs[m]});
  }
  sequence.finished = true;
}

}  // namespace dimmer
