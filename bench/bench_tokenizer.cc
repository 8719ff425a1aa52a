#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "engine/text/tokenizer.h"
#include "engine/util/status.h"

namespace dimmer::bench {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Options {
  std::string package;
  std::string texts;
  double seconds = 2;
};

// One thread: every text once per round, for at least options.seconds.
absl::Status Run(const Options& options) {
  const auto load_start = Clock::now();
  DIMMER_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(options.package));
  const double load_seconds = SecondsSince(load_start);
  DIMMER_ASSIGN_OR_RETURN(const std::vector<std::string> texts, ReadTexts(options.texts));

  uint64_t tokens = 0, bytes = 0;
  std::vector<double> rates;  // tokens per second, one per round
  const auto start = Clock::now();
  while (rates.empty() || SecondsSince(start) < options.seconds) {
    tokens = bytes = 0;
    const auto round_start = Clock::now();
    for (const std::string& text : texts) {
      DIMMER_ASSIGN_OR_RETURN(const Encoding encoding,
                              tokenizer->Encode(text, std::nullopt, {.add_special_tokens = false}));
      tokens += encoding.ids.size();
      bytes += text.size();
    }
    rates.push_back(static_cast<double>(tokens) / SecondsSince(round_start));
  }
  const nlohmann::json report = {{"load_ms", 1e3 * load_seconds},
                                 {"texts", texts.size()},
                                 {"bytes", bytes},
                                 {"tokens", tokens},
                                 {"rounds", rates.size()},
                                 {"tokens_per_second", Median(rates)}};
  fmt::print("{}\n", report.dump(1));
  return absl::OkStatus();
}

}  // namespace

void AddTokenizerCommand(CLI::App& app, Command& command) {
  auto options = std::make_shared<Options>();
  CLI::App* sub = app.add_subcommand("tokenizer", "Tokens per second on one thread, as JSON");
  sub->add_option("package", options->package, "Checkpoint directory")
      ->required()
      ->check(CLI::ExistingDirectory);
  sub->add_option("--texts", options->texts, "File of texts, one a line (default: built in)")
      ->check(CLI::ExistingFile);
  sub->add_option("--seconds", options->seconds, "Measure at least so long")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->callback([options, &command] { command = [options] { return Run(*options); }; });
}

}  // namespace dimmer::bench
