#include "engine/request_walk.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/generate_request.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

std::string_view CannotDo(Task task) {
  switch (task) {
    case Task::kClassification:
      return "classify: it has no classification head";
    case Task::kEmbedding:
      return "embed";
    case Task::kGeneration:
      return "generate";
    case Task::kScoring:
      return "score";
  }
  return "do this";
}

bool IsCausal(Task task) { return task == Task::kGeneration || task == Task::kScoring; }

absl::Status CheckTask(Task task, const LoadedModel& model) {
  const std::vector<Task>& tasks = model.info().tasks;
  if (std::find(tasks.begin(), tasks.end(), task) != tasks.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("model {} ({}) cannot {}", model.name(),
                                                model.info().architecture, CannotDo(task)));
}

absl::Status CheckTexts(const Request& request, const LoadedModel& model) {
  if (!request.text_pairs.empty() && request.text_pairs.size() != request.texts.size()) {
    return absl::InvalidArgumentError(
        fmt::format("text_pairs: found {} for {} texts, expected none or as many",
                    request.text_pairs.size(), request.texts.size()));
  }
  if (model.tokenizer == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("texts: model {} has no tokenizer, it takes token ids only", model.name()));
  }
  return CheckTextSizes(request);
}

absl::Status CheckTokenIds(const Request& request, const LoadedModel& model) {
  if (!request.text_pairs.empty()) {
    return absl::InvalidArgumentError("text_pairs: cannot be combined with token_ids");
  }
  const auto vocab_size = static_cast<int64_t>(model.info().vocab_size);
  for (size_t i = 0; i < request.token_ids.size(); ++i) {
    const std::vector<int32_t>& ids = request.token_ids[i];
    if (ids.empty()) {
      return absl::InvalidArgumentError(
          fmt::format("token_ids[{}] is empty, expected at least one token", i));
    }
    if (ids.size() > model.max_tokens && request.task != Task::kGeneration) {
      return absl::InvalidArgumentError(
          fmt::format("token_ids[{}] has {} tokens, the model takes {}; token ids are never cut", i,
                      ids.size(), model.max_tokens));
    }
    const auto bad = std::find_if(ids.begin(), ids.end(),
                                  [&](int32_t id) { return id < 0 || id >= vocab_size; });
    if (bad != ids.end()) {
      return absl::InvalidArgumentError(fmt::format("token_ids[{}][{}]: found {}, expected 0 to {}",
                                                    i, bad - ids.begin(), *bad, vocab_size - 1));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Encoding> Encode(const Request& request, const LoadedModel& model, size_t index) {
  const std::string where = fmt::format("text {}", index);
  std::optional<std::string_view> pair;
  if (!request.text_pairs.empty()) pair = request.text_pairs[index];
  // Without truncation the whole text is encoded, to tell how long it is.
  absl::StatusOr<Encoding> encoding =
      model.tokenizer->Encode(request.texts[index], pair,
                              {.add_special_tokens = true,
                               .max_tokens = request.truncate ? size_t{model.max_tokens} : 0,
                               .truncate = request.truncate});
  if (!encoding.ok()) return Annotate(encoding.status(), where);
  // A prompt's length is checked with what it is to be continued by.
  if (encoding->ids.size() > model.max_tokens && request.task != Task::kGeneration) {
    return absl::InvalidArgumentError(
        fmt::format("{} has {} tokens, the model takes {}; set truncate to have it cut", where,
                    encoding->ids.size(), model.max_tokens));
  }
  return encoding;
}

absl::Status PlanSequences(const Request& request, const LoadedModel& model,
                           const TauSettings& settings, std::span<const uint32_t> tokens,
                           std::span<Sequence> sequences) {
  if (request.task == Task::kGeneration) {
    return PrepareGeneration(request, model, settings, sequences.front());
  }
  const ModelInfo& info = model.info();
  const auto plan = [&] {
    if (request.task == Task::kScoring) {
      return PlanScoring(request.budget, settings, info.cost, tokens);
    }
    const bool headless = request.task == Task::kEmbedding;
    return PlanCall(request.budget, settings, headless ? info.cost.WithoutHead() : info.cost,
                    info.calibration, tokens);
  };
  DIMMER_ASSIGN_OR_RETURN(std::vector<ComputePlan> plans, plan());
  for (size_t i = 0; i < plans.size(); ++i) sequences[i].plan = std::move(plans[i]);
  return absl::OkStatus();
}

}  // namespace

size_t SequenceCount(const Request& request) {
  return request.texts.empty() ? request.token_ids.size() : request.texts.size();
}

absl::Status CheckTextSizes(const Request& request) {
  const auto check = [](const char* field, const std::vector<std::string>& texts) {
    for (size_t i = 0; i < texts.size(); ++i) {
      if (texts[i].size() <= kMaxTextBytes) continue;
      return absl::InvalidArgumentError(fmt::format("{}[{}] has {} bytes, at most {} are taken",
                                                    field, i, texts[i].size(), kMaxTextBytes));
    }
    return absl::OkStatus();
  };
  DIMMER_RETURN_IF_ERROR(check("texts", request.texts));
  return check("text_pairs", request.text_pairs);
}

absl::Status CheckRequest(const Request& request, const LoadedModel& model) {
  DIMMER_RETURN_IF_ERROR(CheckTask(request.task, model));
  DIMMER_RETURN_IF_ERROR(ValidateBudget(request.budget));
  if (request.texts.empty() && request.token_ids.empty()) {
    return absl::InvalidArgumentError("texts: found none, expected at least one");
  }
  if (!request.texts.empty() && !request.token_ids.empty()) {
    return absl::InvalidArgumentError("token_ids: cannot be combined with texts");
  }
  if (IsCausal(request.task)) DIMMER_RETURN_IF_ERROR(CheckGenerate(request, model));
  return request.texts.empty() ? CheckTokenIds(request, model) : CheckTexts(request, model);
}

absl::StatusOr<Prepared> Prepare(const Request& request, const LoadedModel& model,
                                 const TauSettings& settings,
                                 const std::function<absl::Status()>& check) {
  const size_t count = SequenceCount(request);
  Prepared prepared;
  prepared.sequences.resize(count);
  prepared.truncated.resize(count);
  std::vector<uint32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) {
    DIMMER_RETURN_IF_ERROR(check());
    Sequence& sequence = prepared.sequences[i];
    sequence.task = request.task;
    if (request.texts.empty()) {
      sequence.ids = request.token_ids[i];
      sequence.type_ids.assign(sequence.ids.size(), 0);
    } else {
      DIMMER_ASSIGN_OR_RETURN(Encoding encoding, Encode(request, model, i));
      sequence.ids = std::move(encoding.ids);
      sequence.type_ids = std::move(encoding.type_ids);
      prepared.truncated[i] = encoding.truncated;
    }
    if (sequence.ids.empty() && IsCausal(request.task)) {
      DIMMER_ASSIGN_OR_RETURN(const int32_t first, FirstToken(model));
      sequence.ids.push_back(first);
    }
    tokens[i] = static_cast<uint32_t>(sequence.ids.size());
  }
  DIMMER_RETURN_IF_ERROR(check());
  DIMMER_RETURN_IF_ERROR(PlanSequences(request, model, settings, tokens, prepared.sequences));
  return prepared;
}

std::vector<float> Scores(std::span<const float> logits, bool multi_label) {
  std::vector<float> scores(logits.size());
  if (multi_label) {
    std::transform(logits.begin(), logits.end(), scores.begin(),
                   [](double logit) { return static_cast<float>(1 / (1 + std::exp(-logit))); });
    return scores;
  }
  if (logits.empty()) return scores;
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  std::transform(logits.begin(), logits.end(), scores.begin(),
                 [&](double logit) { return static_cast<float>(std::exp(logit - max) / sum); });
  return scores;
}

Response MakeResponse(const LoadedModel& model, std::span<Sequence> sequences,
                      const std::vector<bool>& truncated) {
  Response response{
      .status = {}, .model = model.name(), .version = model.served->version, .results = {}};
  for (size_t i = 0; i < sequences.size(); ++i) {
    Usage& usage = sequences[i].usage;
    usage.budget_clamped |= sequences[i].plan.clamped;
    usage.truncated |= truncated[i];
    response.usage.Add(usage);
  }
  for (size_t i = 0; i < sequences.size(); ++i) {
    const absl::Status& status = sequences[i].status;
    if (status.ok()) continue;
    // Cancellation and deadlines are the call's; the rest is one text's own.
    const bool of_call = absl::IsCancelled(status) || absl::IsDeadlineExceeded(status) ||
                         absl::IsUnavailable(status);
    response.status =
        of_call || sequences.size() == 1 ? status : Annotate(status, fmt::format("text {}", i));
    return response;
  }
  response.results.resize(sequences.size());
  for (size_t i = 0; i < sequences.size(); ++i) {
    Sequence& sequence = sequences[i];
    Result& result = response.results[i];
    result.usage = std::move(sequence.usage);
    result.embedding = std::move(sequence.embedding);
    if (sequence.task == Task::kClassification) {
      result.scores = Scores(sequence.logits, model.info().multi_label);
      result.logits = std::move(sequence.logits);
    }
    result.logprobs = std::move(sequence.token_logprobs);
    if (sequence.generation != nullptr) {
      result.finish_reason = sequence.generation->finish_reason;
      result.seed = sequence.generation->sampling.seed;
    }
  }
  return response;
}

}  // namespace dimmer
