// dimmer-bench model: time per request over a sweep of tau, the dense pass beside it.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "engine/kernels/rowwise.h"
#include "engine/package/version_directory.h"
#include "engine/util/status.h"

namespace dimmer::bench {
namespace {

struct Options {
  std::string model;
  std::vector<size_t> batches = {1, 32};
  std::vector<double> taus;
  std::string texts;
  size_t tokens = 22;
  size_t threads = 1;
  double seconds = 2;
  bool json = false;
};

struct Cell {
  size_t batch = 1;
  double tau = 0;
  std::vector<double> seconds;
  uint64_t flops = 0;
  uint64_t dense_flops = 0;
  uint64_t tokens = 0;
  std::vector<uint64_t> expert_runs;  // per module
};

std::vector<Sequence> MakeBatch(const std::vector<std::vector<int32_t>>& texts, size_t first,
                                size_t count, double tau, const ModelInfo& info) {
  std::vector<Sequence> batch(count);
  for (size_t i = 0; i < count; ++i) {
    batch[i].task = info.tasks.front();
    batch[i].ids = texts[(first + i) % texts.size()];
    batch[i].plan.module_tau.assign(info.cost.moe.size(), tau);
  }
  return batch;
}

absl::Status Measure(Runner& runner, const std::vector<std::vector<int32_t>>& texts, size_t round,
                     bool keep, Cell& cell) {
  std::vector<Sequence> batch =
      MakeBatch(texts, round * cell.batch, cell.batch, cell.tau, runner.model->info());
  const double seconds = runner.Run(batch);
  for (const Sequence& sequence : batch) DIMMER_RETURN_IF_ERROR(sequence.status);
  if (!keep) return absl::OkStatus();
  cell.seconds.push_back(seconds);
  for (const Sequence& sequence : batch) {
    const Usage& usage = sequence.usage;
    cell.flops += usage.flops;
    cell.dense_flops += usage.dense_flops;
    cell.tokens += usage.prompt_tokens;
    cell.expert_runs.resize(usage.layers.size());
    for (size_t m = 0; m < usage.layers.size(); ++m) {
      cell.expert_runs[m] += usage.layers[m].expert_runs;
    }
  }
  return absl::OkStatus();
}

std::string ExpertsRun(const Cell& cell) {
  std::string text;
  for (uint64_t runs : cell.expert_runs) {
    text += fmt::format(" {:.1f}", static_cast<double>(runs) / static_cast<double>(cell.tokens));
  }
  return text.empty() ? " -" : text;
}

void PrintTable(const Options& options, const Runner& runner, const std::vector<Cell>& cells) {
  fmt::print("{}, {} threads, {} tokens per text, {}\n", runner.model->info().architecture,
             runner.pool->threads(),
             options.tokens > 0 ? std::to_string(options.tokens) : "its own", InstructionSet());
  fmt::print("{:>6} {:>8} {:>12} {:>10} {:>9} {:>8}  {}\n", "batch", "tau", "ms/batch", "ms/text",
             "of dense", "FLOPs", "experts run per token and layer");
  double dense = 0;
  for (const Cell& cell : cells) {
    const double median = Median(cell.seconds);
    if (cell.tau == 0) dense = median;
    fmt::print("{:>6} {:>8} {:>12.3f} {:>10.3f} {:>9.3f} {:>8.3f} {}\n", cell.batch, cell.tau,
               1e3 * median, 1e3 * median / static_cast<double>(cell.batch), median / dense,
               static_cast<double>(cell.flops) / static_cast<double>(cell.dense_flops),
               ExpertsRun(cell));
  }
}

void PrintJson(const Runner& runner, const std::vector<Cell>& cells) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Cell& cell : cells) {
    nlohmann::json experts = nlohmann::json::array();
    for (uint64_t runs : cell.expert_runs) {
      experts.push_back(static_cast<double>(runs) / static_cast<double>(cell.tokens));
    }
    rows.push_back({{"batch", cell.batch},
                    {"tau", cell.tau},
                    {"median_seconds", Median(cell.seconds)},
                    {"runs", cell.seconds.size()},
                    {"flops", cell.flops},
                    {"dense_flops", cell.dense_flops},
                    {"experts_run", experts}});
  }
  const nlohmann::json out = {{"architecture", runner.model->info().architecture},
                              {"threads", runner.pool->threads()},
                              {"instruction_set", InstructionSet()},
                              {"results", rows}};
  fmt::print("{}\n", out.dump(2));
}

absl::Status RunModel(Options options) {
  options.model = VersionDirectory(options.model);
  DIMMER_ASSIGN_OR_RETURN(const auto runner, LoadRunner(options.model, options.threads));
  const ModelInfo& info = runner->model->info();
  DIMMER_ASSIGN_OR_RETURN(const std::vector<std::string> texts, ReadTexts(options.texts));
  DIMMER_ASSIGN_OR_RETURN(const auto ids,
                          EncodeTexts(options.model, texts, options.tokens, info.max_tokens));
  if (info.cost.moe.empty()) {
    options.taus = {0};
  } else if (options.taus.empty()) {
    options.taus = {0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1};
  }
  if (options.taus.front() != 0) options.taus.insert(options.taus.begin(), 0);
  std::vector<Cell> cells;
  for (size_t batch : options.batches) {
    for (double tau : options.taus) {
      Cell& cell = cells.emplace_back();
      cell.batch = batch;
      cell.tau = tau;
    }
  }
  for (Cell& cell : cells) DIMMER_RETURN_IF_ERROR(Measure(*runner, ids, 0, false, cell));
  // Interleaved: a change of the machine's speed meets all cells alike.
  const auto start = std::chrono::steady_clock::now();
  const auto limit =
      std::chrono::duration<double>(options.seconds * static_cast<double>(options.batches.size()));
  for (size_t round = 0; round < 5 || std::chrono::steady_clock::now() - start < limit; ++round) {
    for (Cell& cell : cells) DIMMER_RETURN_IF_ERROR(Measure(*runner, ids, round, true, cell));
  }
  if (options.json) {
    PrintJson(*runner, cells);
  } else {
    PrintTable(options, *runner, cells);
  }
  return absl::OkStatus();
}

}  // namespace

void AddModelCommand(CLI::App& app, Command& command) {
  auto options = std::make_shared<Options>();
  CLI::App* sub = app.add_subcommand("model", "Time per request over a sweep of tau");
  sub->add_option("--model", options->model, "Package, or a model's folder with versions")
      ->required();
  sub->add_option("--batch", options->batches, "Texts per batch")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--tau", options->taus, "Values of tau; 0 (dense) is always measured")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0));
  sub->add_option("--texts", options->texts, "File of one text a line (default: built-in ones)");
  sub->add_option(
         "--tokens", options->tokens,
         "Tokens per text, special ones included; texts are joined and cut. 0: as they are")
      ->capture_default_str();
  sub->add_option("--threads", options->threads, "Compute threads; 0: one per core")
      ->capture_default_str();
  sub->add_option("--seconds", options->seconds, "How long to measure, per batch size")
      ->capture_default_str();
  sub->add_flag("--json", options->json, "Print JSON");
  sub->callback([options, &command] { command = [options] { return RunModel(*options); }; });
}

}  // namespace dimmer::bench
