#include "server/config.h"

#include <absl/strings/ascii.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_split.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr uintmax_t kMaxFileBytes = 1 << 20;

absl::Status Wrong(std::string_view where, std::string_view found, std::string_view expected) {
  return absl::InvalidArgumentError(
      fmt::format("{}: found \"{}\", expected {}", where, found, expected));
}

absl::Status Apply(const OptionSpec::Text& kind, const std::vector<std::string>& values,
                   const std::string& where, Config& config) {
  if (values.size() != 1) return Wrong(where, fmt::format("{}", values), "one value");
  config.*kind.field = values[0];
  return absl::OkStatus();
}

absl::Status Apply(const OptionSpec::List& kind, const std::vector<std::string>& values,
                   const std::string& where, Config& config) {
  for (const std::string& value : values) {
    if (value.empty()) return Wrong(where, value, "a name");
  }
  config.*kind.field = values;
  return absl::OkStatus();
}

absl::Status Apply(const OptionSpec::Number& kind, const std::vector<std::string>& values,
                   const std::string& where, Config& config) {
  const std::string expected = fmt::format("an integer in [{}, {}]", kind.min, kind.max);
  uint64_t number = 0;
  if (values.size() != 1) return Wrong(where, fmt::format("{}", values), expected);
  if (!absl::SimpleAtoi(values[0], &number) || number < kind.min || number > kind.max) {
    return Wrong(where, values[0], expected);
  }
  config.*kind.field = number;
  return absl::OkStatus();
}

absl::Status Apply(const OptionSpec::Switch& kind, const std::vector<std::string>& values,
                   const std::string& where, Config& config) {
  bool value = false;
  if (values.size() != 1 || !absl::SimpleAtob(values[0], &value)) {
    return Wrong(where, fmt::format("{}", fmt::join(values, ",")), "true or false");
  }
  config.*kind.field = value;
  return absl::OkStatus();
}

absl::Status Apply(const OptionSpec::Choice& kind, const std::vector<std::string>& values,
                   const std::string& where, Config& config) {
  for (const std::string& choice : kind.values) {
    if (values.size() == 1 && values[0] == choice) {
      config.*kind.field = choice;
      return absl::OkStatus();
    }
  }
  return Wrong(where, fmt::format("{}", fmt::join(values, ",")),
               fmt::format("one of {}", fmt::join(kind.values, ", ")));
}

absl::Status ApplyOption(const OptionSpec& option, const std::vector<std::string>& values,
                         const std::string& where, Config& config) {
  return std::visit([&](const auto& kind) { return Apply(kind, values, where, config); },
                    option.field);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  const bool regular = std::filesystem::is_regular_file(path, error);
  if (!std::filesystem::exists(path, error)) {
    return absl::InvalidArgumentError(fmt::format("{}: no such file (flag --config)", path));
  }
  if (!regular) {
    return absl::InvalidArgumentError(
        fmt::format("{}: not a regular file, expected YAML (flag --config)", path));
  }
  if (std::filesystem::file_size(path, error) > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        fmt::format("{}: longer than {} bytes (flag --config)", path, kMaxFileBytes));
  }
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) {
    return absl::InvalidArgumentError(fmt::format("{}: not readable (flag --config)", path));
  }
  return text.str();
}

const OptionSpec* FindYamlKey(const std::string& key) {
  for (const OptionSpec& option : ConfigOptions()) {
    if (option.YamlKey() == key && option.name != "config") return &option;
  }
  return nullptr;
}

absl::StatusOr<std::vector<std::string>> ScalarsOf(const YAML::Node& node,
                                                   const std::string& where) {
  std::vector<std::string> values;
  if (node.IsScalar()) return std::vector<std::string>{node.Scalar()};
  if (!node.IsSequence()) {
    return Wrong(where, node.IsMap() ? "a map" : "nothing", "a value or a list of values");
  }
  for (const YAML::Node& element : node) {
    if (!element.IsScalar()) return Wrong(where, "a nested list or map", "a list of values");
    values.push_back(element.Scalar());
  }
  return values;
}

absl::Status ApplyYamlNode(const std::string& path, const YAML::Node& root, Config& config) {
  if (root.IsNull()) return absl::OkStatus();
  if (!root.IsMap()) return Wrong(path + ":1", "no map", "lines of `key: value`");
  std::vector<std::string> seen;
  for (const auto& item : root) {
    const YAML::Node& key = item.first;
    const YAML::Node& value = item.second;
    const int line = key.Mark().line + 1;
    const std::string name = key.IsScalar() ? key.Scalar() : "";
    const OptionSpec* option = FindYamlKey(name);
    if (option == nullptr) {
      return absl::InvalidArgumentError(fmt::format(
          "{}:{}: unknown key \"{}\"; keys are the long flags with _ for -", path, line, name));
    }
    const std::string where = fmt::format("{}:{}: {}", path, line, name);
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
      return absl::InvalidArgumentError(where + ": this key was there before");
    }
    seen.push_back(name);
    DIMMER_ASSIGN_OR_RETURN(const auto values, ScalarsOf(value, where));
    DIMMER_RETURN_IF_ERROR(ApplyOption(*option, values, where, config));
  }
  return absl::OkStatus();
}

absl::Status ApplyYaml(const std::string& path, Config& config) {
  DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  try {
    return ApplyYamlNode(path, YAML::Load(text), config);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        fmt::format("{}:{}: not YAML: {}", path, error.mark.line + 1, error.msg));
  }
}

absl::Status ApplyEnvironment(const Environment& environment, Config& config) {
  for (const OptionSpec& option : ConfigOptions()) {
    const std::optional<std::string> value = environment(option.Environment());
    if (!value.has_value()) continue;
    std::vector<std::string> values = {*value};
    if (std::holds_alternative<OptionSpec::List>(option.field)) {
      values = absl::StrSplit(*value, ',');
    }
    DIMMER_RETURN_IF_ERROR(
        ApplyOption(option, values, "environment variable " + option.Environment(), config));
  }
  return absl::OkStatus();
}

// CLI11 only collects the words; Apply() checks them, as it does for the other two sources.
struct Flags {
  bool health_check = false;
  CLI::App app{"Serves transformers whose compute can be turned down per request.",
               "dimmer-server"};
  std::vector<std::vector<std::string>> values{ConfigOptions().size()};

  Flags() {
    app.get_formatter()->column_width(36);
    app.footer(
        "Every flag is also a key of the --config file (with _ for -: grpc_port) and an "
        "environment\nvariable (DIMMER_GRPC_PORT). A flag wins over the environment, and that "
        "over the file.");
    app.set_version_flag("--version", std::string("dimmer-server ") + DIMMER_VERSION,
                         "Print the version and exit");
    app.get_help_ptr()->description("Print this and exit");
    app.add_flag("--health-check", health_check,
                 "Ask the server that runs with these options whether it serves; exit status 0 if "
                 "so, else 1");
    for (size_t i = 0; i < ConfigOptions().size(); ++i) {
      const OptionSpec& option = ConfigOptions()[i];
      const std::string fallback = option.Default();
      app.add_option(option.Flag(), values[i],
                     fallback.empty() ? option.help : fmt::format("{} [{}]", option.help, fallback))
          ->type_name(option.metavar)
          ->group(option.group)
          ->expected(1)
          ->allow_extra_args(false)  // one word a flag: a stray one is an error
          ->multi_option_policy(std::holds_alternative<OptionSpec::List>(option.field)
                                    ? CLI::MultiOptionPolicy::TakeAll
                                    : CLI::MultiOptionPolicy::TakeLast);
    }
  }
};

}  // namespace

Environment ProcessEnvironment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
  };
}

absl::StatusOr<CommandLine> ReadConfig(int argc, const char* const* argv,
                                       const Environment& environment) {
  Flags flags;
  CommandLine line;
  try {
    flags.app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    line.print = flags.app.help();
    return line;
  } catch (const CLI::CallForVersion&) {
    line.print = flags.app.version() + "\n";
    return line;
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(std::string(error.what()));
  }
  // --config itself is a flag or a variable; it is read first and applied last in rank.
  Config named;
  for (size_t i = 0; i < ConfigOptions().size(); ++i) {
    const OptionSpec& option = ConfigOptions()[i];
    if (option.name != "config") continue;
    const auto variable = environment(option.Environment());
    if (variable.has_value()) named.config = *variable;
    if (!flags.values[i].empty()) named.config = flags.values[i].back();
  }
  if (!named.config.empty()) DIMMER_RETURN_IF_ERROR(ApplyYaml(named.config, line.config));
  DIMMER_RETURN_IF_ERROR(ApplyEnvironment(environment, line.config));
  for (size_t i = 0; i < ConfigOptions().size(); ++i) {
    if (flags.values[i].empty()) continue;
    const OptionSpec& option = ConfigOptions()[i];
    DIMMER_RETURN_IF_ERROR(
        ApplyOption(option, flags.values[i], "flag " + option.Flag(), line.config));
  }
  line.health_check = flags.health_check;
  if (line.health_check) return line;
  if (line.config.model_repository.empty()) {
    return absl::InvalidArgumentError(
        "flag --model-repository: found none, expected at least one folder with models");
  }
  if (!line.config.load_model.empty() && line.config.model_control_mode != "explicit") {
    return absl::InvalidArgumentError(
        fmt::format("flag --load-model: found --model-control-mode {}, expected explicit",
                    line.config.model_control_mode));
  }
  return line;
}

}  // namespace dimmer
