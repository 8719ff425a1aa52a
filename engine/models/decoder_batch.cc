#include "engine/models/decoder_batch.h"

#include <algorithm>
#include <cstring>

#include "engine/util/status.h"

namespace dimmer {
namespace {

// Logits below which to wake another thread costs more than it saves.
constexpr size_t kLogitsToSplit = 1 << 15;

bool Scores(const Sequence& sequence) { return sequence.task == Task::kScoring; }

// Tokens that are computed at all: what is only predicted is not.
uint64_t End(const Sequence& sequence) {
  return Scores(sequence) ? sequence.ids.size() - 1 : sequence.ids.size();
}

bool Decodes(const Sequence& sequence) {
  const Generation& state = *sequence.generation;
  return !Scores(sequence) && state.computed >= state.prompt_tokens;
}

// To the next fixed boundary, or to the end of what is there.
uint64_t ChunkOf(const Sequence& sequence) {
  if (Decodes(sequence)) return 1;
  const uint64_t first = sequence.generation->computed;
  const uint64_t boundary = (first / kPromptChunk + 1) * kPromptChunk;
  return std::min(boundary, End(sequence)) - first;
}

uint32_t Generated(const Sequence& sequence) {
  return static_cast<uint32_t>(sequence.ids.size()) - sequence.generation->prompt_tokens;
}

}  // namespace

DecoderBatch::DecoderBatch(const ModelInfo& info, std::span<Sequence* const> sequences,
                           const StepContext& context)
    : info_(info), stats_(context.stats) {
  std::vector<Sequence*> prompts;
  for (Sequence* sequence : sequences) {
    if (sequence->finished) continue;
    if (sequence->generation == nullptr || !sequence->generation->budget) {
      if (absl::Status status = Start(*sequence); !status.ok()) {
        Stop(*sequence, std::move(status));
        continue;
      }
    }
    if (Decodes(*sequence)) {
      Take(*sequence, 1);
    } else {
      prompts.push_back(sequence);
    }
  }
  const uint64_t most = context.max_prompt_tokens;
  uint64_t rows = 0;
  for (Sequence* sequence : prompts) {
    const uint64_t count = ChunkOf(*sequence);
    if (rows > 0 && most > 0 && rows + count > most) break;
    rows += count;
    Take(*sequence, count);
  }
  Layout();
  if (stats_ == nullptr) return;
  stats_->tokens += tokens_;
  const std::vector<MoeCost>& modules = info.cost.moe;
  stats_->modules.resize(modules.size());
  for (size_t m = 0; m < modules.size(); ++m) {
    stats_->modules[m].expert_tokens.resize(modules[m].experts);
    stats_->modules[m].experts_per_token.resize(modules[m].experts + size_t{1});
  }
}

absl::Status DecoderBatch::Check(const Sequence& sequence) const {
  const size_t tokens = sequence.ids.size();
  if (!Scores(sequence) && sequence.task != Task::kGeneration) {
    return absl::InvalidArgumentError(
        fmt::format("{} generates and scores text only", info_.architecture));
  }
  if (!Scores(sequence) &&
      (sequence.generation == nullptr || sequence.generation->max_new_tokens == 0)) {
    return absl::InvalidArgumentError("max_new_tokens: found 0, expected at least 1");
  }
  const size_t least = Scores(sequence) ? 2 : 1;
  const size_t more = Scores(sequence) ? 0 : sequence.generation->max_new_tokens;
  // The last token is predicted and takes no position.
  const size_t most = info_.max_tokens + size_t{1};
  if (tokens < least || tokens + more > most) {
    return absl::InvalidArgumentError(
        fmt::format("found {} tokens and {} to come, expected at least {} and at most {} in all",
                    tokens, more, least, most));
  }
  for (size_t t = 0; t < tokens; ++t) {
    if (sequence.ids[t] >= 0 && static_cast<uint32_t>(sequence.ids[t]) < info_.vocab_size) continue;
    return absl::InvalidArgumentError(
        fmt::format("token id: found {} at position {}, expected 0 "
                    "to {}",
                    sequence.ids[t], t, info_.vocab_size - 1));
  }
  const ComputePlan& plan = sequence.plan;
  const size_t modules = info_.cost.moe.size();
  if (plan.kind == ComputePlan::Kind::kTau && !plan.module_tau.empty() &&
      plan.module_tau.size() != modules) {
    return absl::InvalidArgumentError(
        fmt::format("plan: found {} modules, expected {}", plan.module_tau.size(), modules));
  }
  // Neither of the last token.
  if (sequence.kv.tokens() + 1 < tokens + more) {
    return absl::InternalError(fmt::format("found pages for {} tokens, expected {}",
                                           sequence.kv.tokens(), tokens + more - 1));
  }
  return absl::OkStatus();
}

absl::Status DecoderBatch::Start(Sequence& sequence) const {
  DIMMER_RETURN_IF_ERROR(Check(sequence));
  if (sequence.generation == nullptr) sequence.generation = std::make_unique<Generation>();
  Generation& state = *sequence.generation;
  state.prompt_tokens = static_cast<uint32_t>(sequence.ids.size());
  state.computed = 0;
  state.budget.emplace(
      sequence.plan, info_.cost, info_.calibration,
      GenerationSize{.prompt_tokens = state.prompt_tokens, .max_new_tokens = state.max_new_tokens});
  return absl::OkStatus();
}

// Lets the sequence run its next `count` tokens, if its budget does.
void DecoderBatch::Take(Sequence& sequence, uint64_t count) {
  Generation& state = *sequence.generation;
  const uint64_t first = state.computed;
  const bool last = first + count == End(sequence);
  uint64_t heads = last ? 1 : 0;
  if (Scores(sequence)) heads = count;
  if (!state.budget->Begin({.first = first, .tokens = count, .heads = heads})) {
    state.finish_reason = FinishReason::kBudget;
    Finish(sequence);
    return;
  }
  running_.push_back({.sequence = &sequence, .first = first, .count = count, .heads = heads});
}

void DecoderBatch::Layout() {
  rows_.clear();
  moe_.clear();
  head_rows_.clear();
  tokens_ = 0;
  for (const Running& running : running_) {
    const SequenceRows rows{tokens_, running.count};
    rows_.push_back({rows, running.first, &running.sequence->kv});
    moe_.emplace_back().rows = rows;
    tokens_ += running.count;
    for (uint64_t h = running.heads; h > 0; --h) {
      head_rows_.push_back(static_cast<uint32_t>(tokens_ - h));
    }
  }
}

std::span<const int32_t> DecoderBatch::ids(size_t i) const {
  const Running& running = running_[i];
  return std::span(running.sequence->ids).subspan(running.first, running.count);
}

void DecoderBatch::DropStopped(float* x, size_t stride) {
  const auto now = std::chrono::steady_clock::now();
  size_t kept = 0;
  size_t row = 0;
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i].sequence;
    if (running_[i].out_of_budget) {
      sequence.generation->finish_reason = FinishReason::kBudget;
      Finish(sequence);
    } else if (!running_[i].failure.ok()) {
      Stop(sequence, running_[i].failure);
    } else if (sequence.cancelled != nullptr &&
               sequence.cancelled->load(std::memory_order_relaxed)) {
      Stop(sequence, RequestCancelled());
    } else if (now >= sequence.deadline) {
      Stop(sequence, RequestTimedOut());
    } else {
      const SequenceRows& rows = rows_[i].rows;
      if (rows.first != row) {
        std::memmove(x + row * stride, x + rows.first * stride,
                     rows.count * stride * sizeof(float));
      }
      row += rows.count;
      if (kept != i) running_[kept] = std::move(running_[i]);
      ++kept;
    }
  }
  if (kept == running_.size()) return;
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(kept), running_.end());
  Layout();
}

void DecoderBatch::PlanModule(std::optional<size_t> module) {
  for (size_t i = 0; i < running_.size(); ++i) {
    MoeSequence next;
    next.rows = rows_[i].rows;
    if (module) {
      const GenerationBudget& budget = *running_[i].sequence->generation->budget;
      const uint64_t cap = budget.max_pairs(*module);
      if (cap == GenerationBudget::kNoCap) {
        next.tau = budget.tau(*module);
      } else {
        next.quota = QuotaGate{cap, budget.tau(*module), budget.max_tau(), budget.hard()};
      }
    }
    moe_[i] = next;
  }
}

ModuleStats* DecoderBatch::stats(std::optional<size_t> module) {
  return module && stats_ != nullptr ? &stats_->modules[*module] : nullptr;
}

void DecoderBatch::AccountModule(std::optional<size_t> module) {
  if (!module) return;
  for (size_t i = 0; i < running_.size(); ++i) {
    Running& running = running_[i];
    const MoeSequence& ran = moe_[i];
    GenerationBudget& budget = *running.sequence->generation->budget;
    if (ran.needed > 0) {
      running.failure = budget.GiveUp(*module, ran.needed);
      running.out_of_budget = !Scores(*running.sequence) && Generated(*running.sequence) > 0;
    } else {
      budget.Spend(*module, ran.pairs, ran.routed, ran.effective_tau);
    }
  }
}

void DecoderBatch::Finish(Sequence& sequence) const {
  const Generation& state = *sequence.generation;
  Usage& usage = sequence.usage;
  state.budget->Report(usage);
  usage.prompt_tokens = state.prompt_tokens;
  usage.output_tokens = Scores(sequence) ? 0 : Generated(sequence);
  sequence.status = absl::OkStatus();
  sequence.finished = true;
}

// From the logits of a sequence's head rows to its next token, or its tokens' scores.
void DecoderBatch::ReadLogits(Running& running, const float* logits, size_t stride) const {
  Sequence& sequence = *running.sequence;
  if (running.heads == 0) return;
  if (!Scores(sequence)) {
    thread_local SamplerScratch scratch;
    const absl::StatusOr<Sampled> sampled = SampleToken(
        {logits, info_.vocab_size}, sequence.generation->sampling, sequence.ids.size(), scratch);
    running.failure = sampled.status();
    if (sampled.ok()) running.next = *sampled;
    return;
  }
  for (uint64_t r = 0; r < running.count; ++r, logits += stride) {
    const absl::StatusOr<float> logprob =
        TokenLogProb({logits, info_.vocab_size}, sequence.ids[running.first + r + 1]);
    if (!logprob.ok()) {
      running.failure = logprob.status();
      return;
    }
    running.scores.push_back(*logprob);
  }
}

// Hands the new token on. True if it was the last.
bool DecoderBatch::AddToken(Sequence& sequence, const Sampled& next) const {
  Generation& state = *sequence.generation;
  const std::vector<int32_t>& ends = info_.end_ids;
  if (std::find(ends.begin(), ends.end(), next.id) != ends.end()) {
    state.finish_reason = FinishReason::kEndOfText;
    return true;
  }
  sequence.ids.push_back(next.id);
  if (stats_ != nullptr) ++stats_->output_tokens;
  const bool stop = state.sink != nullptr &&
                    state.sink->OnToken(next.id, next.logprob) == TokenSink::Verdict::kStop;
  if (stop) {
    state.finish_reason = FinishReason::kStop;
  } else if (Generated(sequence) >= state.max_new_tokens) {
    state.finish_reason = FinishReason::kLength;
  }
  return state.finish_reason != FinishReason::kNone;
}

void DecoderBatch::Advance(const float* logits, size_t stride, ThreadPool& pool) {
  std::vector<const float*> own(running_.size());
  size_t heads = 0;
  for (size_t i = 0; i < running_.size(); ++i) {
    own[i] = logits + heads * stride;
    heads += running_[i].heads;
  }
  if (heads * stride < kLogitsToSplit) {
    for (size_t i = 0; i < running_.size(); ++i) ReadLogits(running_[i], own[i], stride);
  } else {
    pool.ParallelFor(running_.size(),
                     [&](size_t i, size_t) { ReadLogits(running_[i], own[i], stride); });
  }
  for (Running& running : running_) {
    Sequence& sequence = *running.sequence;
    Generation& state = *sequence.generation;
    if (!running.failure.ok()) {
      Stop(sequence, running.failure);
      continue;
    }
    state.budget->End();
    state.computed = static_cast<uint32_t>(running.first + running.count);
    const bool prompt = running.first < state.prompt_tokens;
    if (prompt && stats_ != nullptr) stats_->prompt_tokens += running.count;
    if (Scores(sequence)) {
      sequence.token_logprobs.insert(sequence.token_logprobs.end(), running.scores.begin(),
                                     running.scores.end());
      if (state.computed == End(sequence)) Finish(sequence);
    } else if (running.heads > 0 && AddToken(sequence, running.next)) {
      Finish(sequence);
    }
  }
}

}  // namespace dimmer
