#include "server/ctl/command_line.h"

#include <absl/strings/numbers.h>
#include <fmt/format.h>
#include <google/protobuf/duration.pb.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "engine/util/status.h"

namespace dimmer::ctl {
namespace {

constexpr const char* kFooter = R"(
Examples:
  dimmerctl models
  dimmerctl describe emotion
  dimmerctl set-tau emotion --default 0.2 --dry-run
  dimmerctl set-tau emotion --default 0.2 --max 0.5 --ttl 10m
  dimmerctl classify emotion "what a lovely day" --flop-fraction 0.5
  dimmerctl generate stories "Once upon a time" --tau 0.1
  dimmerctl top

Exit status: 0; 1 where the server refused or cannot be reached; 2 where dimmerctl was called wrongly.
)";

std::string Footer(const std::string& examples) {
  return "\nExamples:\n" + examples +
         "\nOptions of every command (addresses, --json, --color): dimmerctl --help\n";
}

absl::StatusOr<absl::Duration> ReadDuration(const std::string& flag, const std::string& text,
                                            absl::Duration least, absl::Duration most) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration < least || duration > most) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found \"{}\", expected a time from {} to {}, such as 500ms, 30s, 10m or "
                    "1h30m",
                    flag, text, absl::FormatDuration(least), absl::FormatDuration(most)));
  }
  return duration;
}

// What CLI11 fills in, before it is checked.
struct Raw {
  std::string timeout = "30s", interval = "1s", ttl;
  std::optional<double> default_tau, min_tau, max_tau, tau, flop_fraction;
  std::optional<uint64_t> max_flops;
  std::vector<std::string> layers;
  uint64_t if_revision = 0;
  uint32_t top_k = 1;  // of labels
  bool dry_run = false, truncate = false;

  std::string prompt;
  uint32_t max_tokens = 0, sample_top_k = 0;
  float temperature = 0, top_p = 0;
  uint64_t seed = 0;
  std::vector<std::string> stop;
};

struct Commands {
  CLI::App *models, *describe, *set_tau, *classify, *generate, *top;
};

// At most one of them is given.
void AddBudget(CLI::App& command, Raw& raw, const std::string& fraction_of,
               const std::string& flops_of) {
  auto* tau = command.add_option("--tau", raw.tau, "Budget: tau in [0, 1]");
  auto* fraction = command.add_option("--flop-fraction", raw.flop_fraction,
                                      "Budget: share of the dense FLOPs, " + fraction_of);
  auto* flops = command.add_option("--max-flops", raw.max_flops, "Budget: FLOPs of " + flops_of);
  tau->excludes(fraction)->excludes(flops);
  fraction->excludes(flops);
}

void AddGenerate(CLI::App& generate, Options& options, Raw& raw) {
  generate.footer(Footer(
      "  dimmerctl generate stories \"Once upon a time\" --tau 0.1\n"
      "  dimmerctl generate stories \"One day\" --temperature 0.8 --seed 7 --stop \"The end\"\n"
      "  dimmerctl generate stories - --json < prompt.txt\n"));
  generate.add_option("MODEL", options.model, "A language model's name")->required()->type_name("");
  generate.add_option("PROMPT", raw.prompt, "What to continue; - reads it from standard input")
      ->required()
      ->type_name("");
  AddBudget(generate, raw, "steered while it runs", "prompt and output together");
  generate.add_option("--max-tokens", raw.max_tokens, "Tokens of output; 0: the model's default")
      ->capture_default_str();
  generate.add_option("--temperature", raw.temperature, "0: always the likeliest token")
      ->capture_default_str();
  generate.add_option("--top-k", raw.sample_top_k, "Sample among this many tokens; 0: all")
      ->capture_default_str();
  generate
      .add_option("--top-p", raw.top_p,
                  "Sample among the fewest tokens whose probabilities reach this; 0: all")
      ->capture_default_str();
  generate
      .add_option("--seed", raw.seed, "The same seed and tau give the same text; 0: a fresh one")
      ->capture_default_str();
  generate.add_option("--stop", raw.stop, "End before this text. May be repeated")
      ->type_name("TEXT")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

Commands AddCommands(CLI::App& app, Options& options, Raw& raw) {
  Commands commands{
      app.add_subcommand("models", "Every model of the server, with its settings"),
      app.add_subcommand("describe",
                         "One model: architecture, experts, calibration, settings, provenance"),
      app.add_subcommand("set-tau", "Change a model's default tau, its bounds or single layers"),
      app.add_subcommand("classify", "Classify texts, and show what each answer cost"),
      app.add_subcommand("generate", "Continue a text, as it is made, and show what that cost"),
      app.add_subcommand("top", "Watch the server: rates, tau, FLOPs saved, experts per layer")};
  commands.models->footer(Footer("  dimmerctl models --json\n"));
  commands.describe->footer(Footer("  dimmerctl describe emotion\n"));
  commands.describe->add_option("MODEL", options.model, "A model's name")
      ->required()
      ->type_name("");

  CLI::App& set = *commands.set_tau;
  set.footer(
      Footer("  dimmerctl set-tau emotion --default 0.2 --dry-run\n"
             "  dimmerctl set-tau emotion --default 0.2 --max 0.5 --ttl 10m\n"
             "  dimmerctl set-tau emotion --layer 0=0.01 --if-revision 3\n"));
  set.add_option("MODEL", options.model, "A converted model's name")->required()->type_name("");
  set.add_option("--default", raw.default_tau, "Tau of calls that name no budget")
      ->type_name("TAU");
  set.add_option("--min", raw.min_tau, "Least tau that a call may have")->type_name("TAU");
  set.add_option("--max", raw.max_tau, "Greatest tau that a call may have")->type_name("TAU");
  set.add_option("--layer", raw.layers,
                 "Tau of one layer, e.g. 2=0.5 or 2:ffn=0.5. May be repeated")
      ->type_name("L[:MODULE]=TAU")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  set.add_option("--ttl", raw.ttl, "Only for this long, e.g. 10m; then back")->type_name("TIME");
  set.add_option("--if-revision", raw.if_revision,
                 "Change only if this revision is in force (`describe` shows it)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  set.add_flag("--dry-run", raw.dry_run, "Show what would be, change nothing");

  CLI::App& classify = *commands.classify;
  classify.footer(
      Footer("  dimmerctl classify emotion \"what a lovely day\" --flop-fraction 0.5\n"
             "  dimmerctl classify emotion - --tau 0.1 --json < texts.txt\n"));
  classify.add_option("MODEL", options.model, "A classifier's name")->required()->type_name("");
  classify.add_option("TEXT", options.texts, "Texts; - reads one a line from standard input")
      ->required()
      ->type_name("");
  AddBudget(classify, raw, "for each text", "all texts together, which then are one call");
  classify.add_option("--top-k", raw.top_k, "Labels per text; 0: all")->capture_default_str();
  classify.add_flag("--truncate", raw.truncate, "Cut texts that are too long for the model");

  AddGenerate(*commands.generate, options, raw);

  CLI::App& top = *commands.top;
  top.footer(
      Footer("  dimmerctl top                          until q or Ctrl-C\n"
             "  dimmerctl top emotion --interval 500ms\n"
             "  dimmerctl top --json --count 10        one object a line\n"));
  top.add_option("MODEL", options.model, "Only this model")->type_name("");
  top.add_option("--interval", raw.interval, "Time between two frames, from 100ms to 1m")
      ->type_name("TIME")
      ->capture_default_str();
  top.add_option("--count", options.count, "Stop after this many frames; 0: never")
      ->capture_default_str();
  return commands;
}

void AddOptions(CLI::App& app, Options& options, Raw& raw) {
  app.set_version_flag("--version", std::string("dimmerctl ") + DIMMER_VERSION);
  app.add_option("--address", options.address, "The server's gRPC port, for classify and generate")
      ->envname("DIMMER_GRPC_ADDRESS")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.add_option("--admin-address", options.admin_address, "Its admin port, for the others")
      ->envname("DIMMER_ADMIN_ADDRESS")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.add_option("--timeout", raw.timeout, "Longest wait for an answer")
      ->type_name("TIME")
      ->capture_default_str();
  app.add_flag("--json", options.json, "JSON; classify, generate and top print one object a line");
  app.add_option("--color", options.color,
                 "auto: on a terminal, unless NO_COLOR is set; always; never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->type_name("WHEN")
      ->capture_default_str();
}

absl::Status FillSetTau(const Raw& raw, Options& options) {
  v1::SetTauRequest& request = options.set_tau;
  request.set_model(options.model);
  if (raw.default_tau.has_value()) request.set_default_tau(*raw.default_tau);
  if (raw.min_tau.has_value()) request.set_min_tau(*raw.min_tau);
  if (raw.max_tau.has_value()) request.set_max_tau(*raw.max_tau);
  for (const std::string& layer : raw.layers) {
    DIMMER_ASSIGN_OR_RETURN(*request.add_layers(), ParseLayerTau(layer));
  }
  if (!request.has_default_tau() && !request.has_min_tau() && !request.has_max_tau() &&
      request.layers().empty()) {
    return absl::InvalidArgumentError(
        "set-tau: nothing to change, expected at least one of --default, --min, --max and --layer");
  }
  if (!raw.ttl.empty()) {
    DIMMER_ASSIGN_OR_RETURN(
        const absl::Duration ttl,
        ReadDuration("--ttl", raw.ttl, absl::Seconds(1), absl::Hours(24 * 365)));
    request.mutable_ttl()->set_seconds(absl::ToInt64Seconds(ttl));
    request.mutable_ttl()->set_nanos(
        static_cast<int32_t>(absl::ToInt64Nanoseconds(ttl % absl::Seconds(1))));
  }
  request.set_if_revision(raw.if_revision);
  request.set_dry_run(raw.dry_run);
  return absl::OkStatus();
}

template <typename Request>
void FillBudget(const Raw& raw, Request& request) {
  if (raw.tau.has_value()) request.mutable_budget()->set_tau(*raw.tau);
  if (raw.flop_fraction.has_value()) {
    request.mutable_budget()->set_flop_fraction(*raw.flop_fraction);
  }
  if (raw.max_flops.has_value()) request.mutable_budget()->set_max_flops(*raw.max_flops);
}

void FillClassify(const Raw& raw, Options& options) {
  v1::ClassifyRequest& request = options.classify;
  request.set_model(options.model);
  request.set_top_k(raw.top_k);
  request.set_truncate(raw.truncate);
  FillBudget(raw, request);
}

void FillGenerate(const Raw& raw, Options& options) {
  v1::GenerateRequest& request = options.generate;
  request.set_model(options.model);
  request.set_prompt(raw.prompt);
  request.set_max_tokens(raw.max_tokens);
  request.set_temperature(raw.temperature);
  request.set_top_k(raw.sample_top_k);
  request.set_top_p(raw.top_p);
  request.set_seed(raw.seed);
  request.mutable_stop()->Add(raw.stop.begin(), raw.stop.end());
  FillBudget(raw, request);
}

absl::Status Fill(const CLI::App& app, const Commands& commands, const Raw& raw, Options& options) {
  DIMMER_ASSIGN_OR_RETURN(options.timeout, ReadDuration("--timeout", raw.timeout,
                                                        absl::Milliseconds(1), absl::Hours(24)));
  DIMMER_ASSIGN_OR_RETURN(
      options.interval,
      ReadDuration("--interval", raw.interval, absl::Milliseconds(100), absl::Minutes(1)));
  if (app.got_subcommand(commands.models)) options.command = Options::Command::kModels;
  if (app.got_subcommand(commands.describe)) options.command = Options::Command::kDescribe;
  if (app.got_subcommand(commands.top)) options.command = Options::Command::kTop;
  if (app.got_subcommand(commands.classify)) {
    options.command = Options::Command::kClassify;
    FillClassify(raw, options);
  }
  if (app.got_subcommand(commands.generate)) {
    options.command = Options::Command::kGenerate;
    FillGenerate(raw, options);
  }
  if (app.got_subcommand(commands.set_tau)) {
    options.command = Options::Command::kSetTau;
    return FillSetTau(raw, options);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::LayerTau> ParseLayerTau(const std::string& text) {
  const size_t equals = text.find('=');
  const std::string place = text.substr(0, equals);
  const size_t colon = place.find(':');
  uint32_t layer = 0;
  double tau = 0;
  if (equals == std::string::npos || !absl::SimpleAtoi(place.substr(0, colon), &layer) ||
      !absl::SimpleAtod(text.substr(equals + 1), &tau) || colon + 1 == place.size()) {
    return absl::InvalidArgumentError(fmt::format(
        "--layer: found \"{}\", expected LAYER=TAU or LAYER:MODULE=TAU, e.g. 2=0.5 or 2:ffn=0.5",
        text));
  }
  v1::LayerTau parsed;
  parsed.set_layer(layer);
  if (colon != std::string::npos) parsed.set_module(place.substr(colon + 1));
  parsed.set_tau(tau);
  return parsed;
}

absl::StatusOr<CommandLine> ReadCommandLine(int argc, const char* const* argv) {
  CommandLine line;
  Raw raw;
  CLI::App app{"Looks at a running dimmer-server and turns its light.", "dimmerctl"};
  app.footer(kFooter);
  app.require_subcommand(1);
  app.fallthrough();
  AddOptions(app, line.options, raw);
  const Commands commands = AddCommands(app, line.options, raw);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    line.print = app.help();  // the chosen command's, if there is one
    return line;
  } catch (const CLI::CallForVersion& version) {
    line.print = std::string(version.what()) + "\n";
    return line;
  } catch (const CLI::ParseError& error) {
    if (app.get_subcommands().empty()) {
      const auto rest = app.remaining();
      return absl::InvalidArgumentError(fmt::format(
          "found {}, expected a command: models, describe, set-tau, classify, generate or "
          "top",
          rest.empty() ? "none" : "\"" + rest.front() + "\""));
    }
    return absl::InvalidArgumentError(error.what());
  }
  DIMMER_RETURN_IF_ERROR(Fill(app, commands, raw, line.options));
  return line;
}

}  // namespace dimmer::ctl
