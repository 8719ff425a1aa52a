#include "engine/generate_request.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "engine/layers/kv_cache.h"
#include "engine/text/utf8.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

absl::Status CheckSampling(const Sampling& sampling) {
  if (!std::isfinite(sampling.temperature) || sampling.temperature < 0) {
    return absl::InvalidArgumentError(
        fmt::format("temperature: found {}, expected a number of at least 0 (0: greedy)",
                    sampling.temperature));
  }
  if (!(sampling.top_p >= 0 && sampling.top_p <= 1)) {
    return absl::InvalidArgumentError(fmt::format(
        "top_p: found {}, expected a number in [0, 1] (0 and 1: no cut)", sampling.top_p));
  }
  return absl::OkStatus();
}

absl::Status CheckStops(const std::vector<std::string>& stops, const LoadedModel& model) {
  if (stops.size() > kMaxStopStrings) {
    return absl::InvalidArgumentError(
        fmt::format("stop: found {} strings, at most {} are taken", stops.size(), kMaxStopStrings));
  }
  if (!stops.empty() && model.tokenizer == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("stop: model {} has no tokenizer, its output has no text", model.name()));
  }
  for (size_t i = 0; i < stops.size(); ++i) {
    if (stops[i].empty() || stops[i].size() > kMaxStopBytes) {
      return absl::InvalidArgumentError(fmt::format("stop[{}]: found {} bytes, expected 1 to {}", i,
                                                    stops[i].size(), kMaxStopBytes));
    }
    if (const auto bad = FindInvalidUtf8(stops[i])) {
      return absl::InvalidArgumentError(
          fmt::format("stop[{}] is not UTF-8: byte {} begins no character", i, *bad));
    }
  }
  return absl::OkStatus();
}

// Below 2^53: a number that every client can write down and send again.
uint64_t FreshSeed() {
  std::random_device device;
  const uint64_t seed = (uint64_t{device()} << 32 | device()) >> 11;
  return seed == 0 ? 1 : seed;
}

// How many tokens may follow the prompt.
absl::StatusOr<uint32_t> NewTokens(uint32_t asked, size_t prompt, const LoadedModel& model) {
  const size_t context = model.max_tokens;
  if (prompt >= context) {
    return absl::InvalidArgumentError(
        fmt::format("the prompt has {} tokens, the model's context {}: no room for a new one",
                    prompt, context));
  }
  const size_t left = context - prompt;
  if (asked > left) {
    return absl::InvalidArgumentError(
        fmt::format("the prompt has {} tokens and max_tokens is {}: {} in all, the model's context "
                    "is {}",
                    prompt, asked, prompt + asked, context));
  }
  if (asked > 0) return asked;
  const uint32_t usual = model.info().default_max_tokens;
  size_t tokens = usual == 0 ? left : std::min<size_t>(usual, left);
  if (const KvPool* pool = model.served->kv.get()) {
    const size_t room = pool->pages() * kKvPageTokens + 1;  // the last token is not kept
    if (room > prompt) tokens = std::min(tokens, room - prompt);
  }
  return static_cast<uint32_t>(tokens);
}

}  // namespace

absl::Status CheckGenerate(const Request& request, const LoadedModel& model) {
  if (!request.text_pairs.empty()) {
    return absl::InvalidArgumentError("text_pairs: only classification and embedding take pairs");
  }
  if (request.task != Task::kGeneration) return absl::OkStatus();
  if (SequenceCount(request) != 1) {
    return absl::InvalidArgumentError(fmt::format("{}: found {}, expected one, the prompt",
                                                  request.texts.empty() ? "token_ids" : "texts",
                                                  SequenceCount(request)));
  }
  if (request.truncate) {
    return absl::InvalidArgumentError("truncate: a prompt is never cut");
  }
  if (!request.generate) return absl::OkStatus();
  DIMMER_RETURN_IF_ERROR(CheckSampling(request.generate->sampling));
  return CheckStops(request.generate->stop, model);
}

absl::StatusOr<int32_t> FirstToken(const LoadedModel& model) {
  if (model.tokenizer != nullptr) {
    if (const auto bos = model.tokenizer->bos_id()) return *bos;
  }
  if (!model.info().end_ids.empty()) return model.info().end_ids.front();
  return absl::InvalidArgumentError(fmt::format(
      "the prompt is empty, and model {} has no token that starts a text", model.name()));
}

absl::Status PrepareGeneration(const Request& request, const LoadedModel& model,
                               const TauSettings& settings, Sequence& sequence) {
  const GenerateOptions options = request.generate.value_or(GenerateOptions{});
  auto generation = std::make_unique<Generation>();
  const size_t prompt = sequence.ids.size();
  DIMMER_ASSIGN_OR_RETURN(generation->max_new_tokens, NewTokens(options.max_tokens, prompt, model));
  generation->prompt_tokens = static_cast<uint32_t>(prompt);
  generation->sampling = options.sampling;
  if (generation->sampling.seed == 0) generation->sampling.seed = FreshSeed();
  DIMMER_ASSIGN_OR_RETURN(
      sequence.plan,
      PlanGeneration(request.budget, settings, model.info().cost,
                     {.prompt_tokens = prompt, .max_new_tokens = generation->max_new_tokens}));
  sequence.generation = std::move(generation);
  return absl::OkStatus();
}

}  // namespace dimmer
