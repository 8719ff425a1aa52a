// The subcommands of dimmer-bench. Each registers itself with its options and sets what main()
// runs.
#ifndef DIMMER_BENCH_BENCH_H_
#define DIMMER_BENCH_BENCH_H_

#include <absl/status/status.h>

#include <CLI/CLI.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/layers/workspace.h"
#include "engine/models/model.h"

namespace dimmer::bench {

using Command = std::function<absl::Status()>;

void AddModelCommand(CLI::App& app, Command& command);
void AddLogitsCommand(CLI::App& app, Command& command);
void AddGenerateCommand(CLI::App& app, Command& command);
void AddFfnCommand(CLI::App& app, Command& command);
void AddTokenizerCommand(CLI::App& app, Command& command);

// A model with the threads and the scratch memory of one worker.
struct Runner {
  std::unique_ptr<Model> model;
  std::unique_ptr<ThreadPool> pool;
  Workspace workspace;

  // Runs the batch and returns the seconds it took.
  double Run(std::span<Sequence> batch);
};
// `threads` 0: one per core.
absl::StatusOr<std::unique_ptr<Runner>> LoadRunner(const std::string& directory, size_t threads);

// The lines of `file`, up to their last ';' if they have one (the label of a data file); a small
// built-in list of sentences where `file` is "".
absl::StatusOr<std::vector<std::string>> ReadTexts(const std::string& file);

// Token ids with special tokens. `tokens` > 0: texts are joined and cut to exactly so many each.
absl::StatusOr<std::vector<std::vector<int32_t>>> EncodeTexts(const std::string& directory,
                                                              const std::vector<std::string>& texts,
                                                              size_t tokens, size_t max_tokens);

double Median(std::vector<double> values);

}  // namespace dimmer::bench

#endif  // DIMMER_BENCH_BENCH_H_
