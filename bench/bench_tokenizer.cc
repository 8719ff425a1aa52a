#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "engine/package/json_fields.h"
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
  std::vector<std::string> files;
  double seconds = 2;
};

absl::StatusOr<std::vector<std::string>> ReadAll(const Options& options) {
  if (options.files.empty()) return ReadTexts(options.texts);
  std::vector<std::string> texts;
  for (const std::string& file : options.files) {
    DIMMER_ASSIGN_OR_RETURN(texts.emplace_back(), ReadTextFile(file, uint64_t{1} << 30));
  }
  return texts;
}

// Every text once per round, for at least `seconds`.
absl::StatusOr<nlohmann::json> Measure(const Tokenizer& tokenizer,
                                       const std::vector<std::string>& texts, double seconds) {
  uint64_t tokens = 0, bytes = 0;
  std::vector<double> rates;  // tokens per second, one per round
  const auto start = Clock::now();
  while (rates.empty() || SecondsSince(start) < seconds) {
    tokens = bytes = 0;
    const auto round_start = Clock::now();
    for (const std::string& text : texts) {
      DIMMER_ASSIGN_OR_RETURN(const Encoding encoding,
                              tokenizer.Encode(text, std::nullopt, {.add_special_tokens = false}));
      tokens += encoding.ids.size();
      bytes += text.size();
    }
    rates.push_back(static_cast<double>(tokens) / SecondsSince(round_start));
  }
  return nlohmann::json{{"texts", texts.size()},
                        {"bytes", bytes},
                        {"tokens", tokens},
                        {"rounds", rates.size()},
                        {"tokens_per_second", Median(rates)}};
}

// A megabyte in one word, where merging could be quadratic.
std::vector<std::pair<const char*, std::string>> HardTexts() {
  constexpr size_t kBytes = size_t{1} << 20;
  std::vector<std::pair<const char*, std::string>> texts = {
      {"one_letter", std::string(kBytes, 'a')}, {"blanks", std::string(kBytes, ' ')}};
  std::string letters;
  uint32_t state = 1;
  while (letters.size() < kBytes) {
    state = state * 1664525 + 1013904223;  // Numerical Recipes' generator
    letters += static_cast<char>('a' + (state >> 24) % 26);
  }
  texts.emplace_back("random_letters", std::move(letters));
  return texts;
}

// On one thread.
absl::Status Run(const Options& options) {
  const auto load_start = Clock::now();
  DIMMER_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(options.package));
  const double load_seconds = SecondsSince(load_start);
  DIMMER_ASSIGN_OR_RETURN(const std::vector<std::string> texts, ReadAll(options));
  DIMMER_ASSIGN_OR_RETURN(nlohmann::json report, Measure(*tokenizer, texts, options.seconds));
  report["load_ms"] = 1e3 * load_seconds;
  for (auto& [name, text] : HardTexts()) {
    const std::vector<std::string> hard = {std::move(text)};
    DIMMER_ASSIGN_OR_RETURN(const nlohmann::json measured, Measure(*tokenizer, hard, 0));
    report["megabyte_in_one_word"][name] = {{"tokens", measured["tokens"]},
                                            {"tokens_per_second", measured["tokens_per_second"]}};
  }
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
  CLI::Option* lines =
      sub->add_option("--texts", options->texts, "File of texts, one a line (default: built in)")
          ->check(CLI::ExistingFile);
  sub->add_option("--file", options->files, "Files, each one text")
      ->check(CLI::ExistingFile)
      ->excludes(lines);
  sub->add_option("--seconds", options->seconds, "Measure at least so long")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->callback([options, &command] { command = [options] { return Run(*options); }; });
}

}  // namespace dimmer::bench
