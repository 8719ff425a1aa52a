// dimmer-bench logits: answers batches of token ids, one JSON object a line. The door for scripts
// that compare with other implementations, in results and in time.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "engine/budget/budget.h"
#include "engine/package/json_fields.h"
#include "engine/util/status.h"

namespace dimmer::bench {
namespace {

struct Options {
  std::string model;
  std::string ids = "-";
  size_t threads = 1;
};

absl::StatusOr<std::vector<std::vector<int32_t>>> ReadIds(const JsonFields& fields,
                                                          const char* key) {
  std::vector<std::vector<int32_t>> rows;
  const nlohmann::json& json = fields.json().value(key, nlohmann::json::array());
  for (const nlohmann::json& row : json) {
    std::vector<int32_t>& ids = rows.emplace_back();
    for (const nlohmann::json& id : row) {
      if (!id.is_number_integer()) {
        return absl::InvalidArgumentError(fmt::format(
            "{}: {}: found {}, expected lists of integers", fields.where(), key, id.dump()));
      }
      ids.push_back(id.get<int32_t>());
    }
  }
  return rows;
}

absl::StatusOr<Budget> ReadBudget(const JsonFields& fields) {
  Budget budget;
  if (fields.Has("flop_fraction")) {
    budget.kind = Budget::Kind::kFlopFraction;
    DIMMER_ASSIGN_OR_RETURN(budget.value, fields.Number("flop_fraction", 0, 1));
  } else if (fields.Has("max_flops")) {
    budget.kind = Budget::Kind::kMaxFlops;
    DIMMER_ASSIGN_OR_RETURN(const int64_t flops, fields.Int("max_flops", 1, INT64_MAX));
    budget.max_flops = static_cast<uint64_t>(flops);
  } else {
    budget.kind = Budget::Kind::kTau;
    DIMMER_ASSIGN_OR_RETURN(budget.value, fields.Number("tau", 0, 1, 0));
  }
  return budget;
}

absl::StatusOr<std::vector<Sequence>> ReadBatch(const std::string& line, size_t number,
                                                const ModelInfo& info) {
  const std::string where = fmt::format("line {}", number);
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(line, where));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, where));
  DIMMER_ASSIGN_OR_RETURN(auto ids, ReadIds(fields, "ids"));
  DIMMER_ASSIGN_OR_RETURN(auto type_ids, ReadIds(fields, "type_ids"));
  DIMMER_ASSIGN_OR_RETURN(const bool embed, fields.Bool("embed", false));
  DIMMER_ASSIGN_OR_RETURN(const Budget budget, ReadBudget(fields));
  std::vector<uint32_t> tokens;
  tokens.reserve(ids.size());
  for (const auto& row : ids) tokens.push_back(static_cast<uint32_t>(row.size()));
  DIMMER_ASSIGN_OR_RETURN(const std::vector<ComputePlan> plans,
                          PlanCall(budget, TauSettings(), info.cost, info.calibration, tokens));
  std::vector<Sequence> batch(ids.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    batch[i].task = embed ? Task::kEmbedding : info.tasks.front();
    batch[i].ids = std::move(ids[i]);
    if (!type_ids.empty()) batch[i].type_ids = type_ids.at(i);
    batch[i].plan = plans[i];
  }
  return batch;
}

nlohmann::json ToJson(const Sequence& sequence) {
  if (!sequence.status.ok()) return {{"error", std::string(Message(sequence.status))}};
  nlohmann::json json = {{"flops", sequence.usage.flops},
                         {"dense_flops", sequence.usage.dense_flops},
                         {"tau", sequence.usage.tau}};
  if (!sequence.logits.empty()) json["logits"] = sequence.logits;
  if (!sequence.embedding.empty()) json["embedding"] = sequence.embedding;
  return json;
}

absl::Status RunLogits(const Options& options) {
  DIMMER_ASSIGN_OR_RETURN(const auto runner, LoadRunner(options.model, options.threads));
  std::ifstream file;
  if (options.ids != "-") {
    file.open(options.ids);
    if (!file) return absl::NotFoundError(fmt::format("{}: can't be read", options.ids));
  }
  std::istream& in = options.ids == "-" ? std::cin : file;
  size_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.empty()) continue;
    DIMMER_ASSIGN_OR_RETURN(std::vector<Sequence> batch,
                            ReadBatch(line, number, runner->model->info()));
    const double seconds = runner->Run(batch);
    nlohmann::json results = nlohmann::json::array();
    for (const Sequence& sequence : batch) results.push_back(ToJson(sequence));
    std::cout << nlohmann::json({{"seconds", seconds}, {"results", results}}).dump() << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace

void AddLogitsCommand(CLI::App& app, Command& command) {
  auto options = std::make_shared<Options>();
  CLI::App* sub = app.add_subcommand(
      "logits",
      "Answers JSON lines {\"ids\": [[...]], \"type_ids\": [[...]], \"tau\" | \"flop_fraction\" | "
      "\"max_flops\": ..., \"embed\": false} with results and the time of each batch");
  sub->add_option("--model", options->model, "Directory of a package")->required();
  sub->add_option("--ids-json", options->ids, "File of JSON lines; - is the standard input")
      ->capture_default_str();
  sub->add_option("--threads", options->threads, "Compute threads; 0: one per core")
      ->capture_default_str();
  sub->callback([options, &command] { command = [options] { return RunLogits(*options); }; });
}

}  // namespace dimmer::bench
