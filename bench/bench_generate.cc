// dimmer-bench generate: greedy generations of given prompts, as a child process that times itself,
// for comparisons with other engines.
#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "engine/budget/generation_budget.h"
#include "engine/package/json_fields.h"
#include "engine/util/status.h"

namespace dimmer::bench {
namespace {

struct Options {
  std::string model;
  size_t threads = 1;
};

struct Order {
  std::vector<std::vector<int32_t>> prompts;
  uint32_t new_tokens = 1;
  Budget budget;
};

absl::StatusOr<Order> ReadOrder(const std::string& line, size_t number, const ModelInfo& info) {
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json,
                          ParseJson(line, fmt::format("line {}", number)));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields,
                          JsonFields::Of(json, fmt::format("line {}", number)));
  Order order;
  DIMMER_ASSIGN_OR_RETURN(const int64_t tokens, fields.Int("new_tokens", 1, info.max_tokens));
  order.new_tokens = static_cast<uint32_t>(tokens);
  if (fields.Has("flop_fraction")) {
    order.budget.kind = Budget::Kind::kFlopFraction;
    DIMMER_ASSIGN_OR_RETURN(order.budget.value, fields.Number("flop_fraction", 0, 1));
  } else {
    order.budget.kind = Budget::Kind::kTau;
    DIMMER_ASSIGN_OR_RETURN(order.budget.value, fields.Number("tau", 0, 1, 0));
  }
  for (const nlohmann::json& prompt : json.value("ids", nlohmann::json::array())) {
    std::vector<int32_t>& ids = order.prompts.emplace_back();
    for (const nlohmann::json& id : prompt) {
      if (!id.is_number_integer()) {
        return absl::InvalidArgumentError(
            fmt::format("{}: ids: found {}, expected integers", fields.where(), id.dump()));
      }
      ids.push_back(id.get<int32_t>());
    }
  }
  return order;
}

// Takes everything.
class Listener : public TokenSink {
 public:
  Verdict OnToken(int32_t, float) override { return Verdict::kContinue; }
  bool ready() const override { return true; }
};

absl::StatusOr<std::vector<Sequence>> MakeBatch(const Order& order, const ModelInfo& info,
                                                KvPool& pool, TokenSink& sink) {
  std::vector<Sequence> batch(order.prompts.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    Sequence& sequence = batch[i];
    sequence.task = Task::kGeneration;
    sequence.ids = order.prompts[i];
    const GenerationSize size = {.prompt_tokens = sequence.ids.size(),
                                 .max_new_tokens = order.new_tokens};
    DIMMER_ASSIGN_OR_RETURN(sequence.plan,
                            PlanGeneration(order.budget, TauSettings(), info.cost, size));
    sequence.generation = std::make_unique<Generation>();
    sequence.generation->max_new_tokens = order.new_tokens;
    sequence.generation->sink = &sink;
    auto pages = pool.Reserve(sequence.ids.size() + order.new_tokens);
    if (!pages) return absl::ResourceExhaustedError("too few pages for this batch");
    sequence.kv = *std::move(pages);
  }
  return batch;
}

nlohmann::json ToJson(const Sequence& sequence) {
  if (!sequence.status.ok()) return {{"error", std::string(Message(sequence.status))}};
  const auto first = sequence.ids.begin() + sequence.generation->prompt_tokens;
  return {{"ids", std::vector<int32_t>(first, sequence.ids.end())},
          {"flops", sequence.usage.flops},
          {"dense_flops", sequence.usage.dense_flops}};
}

absl::Status RunGenerate(const Options& options) {
  DIMMER_ASSIGN_OR_RETURN(const auto runner, LoadRunner(options.model, options.threads));
  const ModelInfo& info = runner->model->info();
  Listener sink;
  std::unique_ptr<KvPool> pool;
  size_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    DIMMER_ASSIGN_OR_RETURN(const Order order, ReadOrder(line, ++number, info));
    size_t pages = 0;
    for (const auto& ids : order.prompts) pages += KvPool::PagesFor(ids.size() + order.new_tokens);
    if (pool == nullptr || pool->pages() < pages) pool = std::make_unique<KvPool>(info.kv, pages);
    DIMMER_ASSIGN_OR_RETURN(std::vector<Sequence> batch, MakeBatch(order, info, *pool, sink));
    double seconds = runner->Run(batch);  // the prompts
    const double first = seconds;
    const auto finished = [](const Sequence& sequence) { return sequence.finished; };
    while (!std::all_of(batch.begin(), batch.end(), finished)) seconds += runner->Run(batch);
    nlohmann::json results = nlohmann::json::array();
    for (const Sequence& sequence : batch) results.push_back(ToJson(sequence));
    const nlohmann::json answer = {
        {"seconds", seconds}, {"first_step_seconds", first}, {"results", results}};
    std::cout << answer.dump() << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace

void AddGenerateCommand(CLI::App& app, Command& command) {
  auto options = std::make_shared<Options>();
  CLI::App* sub = app.add_subcommand(
      "generate",
      "Answers JSON lines {\"ids\": [[...]], \"new_tokens\": ..., \"tau\" | \"flop_fraction\": "
      "...} "
      "on the standard input with greedy generations of one batch and their time");
  sub->add_option("--model", options->model, "Directory of a package")->required();
  sub->add_option("--threads", options->threads, "Compute threads; 0: one per core")
      ->capture_default_str();
  sub->callback([options, &command] { command = [options] { return RunGenerate(*options); }; });
}

}  // namespace dimmer::bench
