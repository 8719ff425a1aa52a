// What the server can be told: one table (config.cc) defines every option once, as a flag, a YAML
// key, an environment variable, its help text and its default.
//
// Precedence: flag > environment > --config file > default.
//
// Thread safety: Config is plain data; the functions have no state.
#ifndef DIMMER_SERVER_CONFIG_H_
#define DIMMER_SERVER_CONFIG_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace dimmer {

struct Config {
  std::vector<std::string> model_repository;
  std::string model_control_mode = "none";
  std::vector<std::string> load_model;
  std::string config;
  std::string id = "dimmer";

  std::string address = "0.0.0.0";
  uint64_t http_port = 8000;
  uint64_t grpc_port = 8001;
  uint64_t metrics_port = 8002;
  uint64_t admin_port = 8003;

  uint64_t threads = 0;
  uint64_t workers = 0;
  uint64_t max_queue_size = 1024;
  uint64_t max_texts = 1024;
  uint64_t reader_timeout_secs = 600;
  uint64_t exit_timeout_secs = 30;
  std::string state_dir;

  std::string log_format = "text";
  std::string log_level = "info";
  std::string metrics_per_expert = "auto";

  uint64_t grpc_max_message_bytes = 16u << 20;
  uint64_t grpc_keepalive_time = 7200000;
  uint64_t grpc_keepalive_timeout = 20000;
  bool grpc_keepalive_permit_without_calls = false;
  uint64_t grpc_http2_max_pings_without_data = 2;
  uint64_t grpc_http2_min_recv_ping_interval_without_data = 300000;
  uint64_t grpc_http2_max_ping_strikes = 2;
  uint64_t grpc_max_connection_age = 0;
  uint64_t grpc_max_connection_age_grace = 0;
};

// A row of the table.
struct OptionSpec {
  struct Text {
    std::string Config::*field;
  };
  struct List {  // the flag may be repeated; YAML: one value or a list; environment: commas
    std::vector<std::string> Config::*field;
  };
  struct Number {
    uint64_t Config::*field;
    uint64_t min = 0;
    uint64_t max = 0;
  };
  struct Switch {
    bool Config::*field;
  };
  struct Choice {
    std::string Config::*field;
    std::vector<std::string> values;
  };

  std::string name;     // "grpc-port"
  std::string group;    // heading in --help
  std::string metavar;  // "PORT"
  std::string help;
  std::variant<Text, List, Number, Switch, Choice> field;

  std::string Flag() const;         // "--grpc-port"
  std::string YamlKey() const;      // "grpc_port"
  std::string Environment() const;  // "DIMMER_GRPC_PORT"
  std::string Default() const;      // "8001"; "" if empty
};

const std::vector<OptionSpec>& ConfigOptions();

// Reads one variable of the environment; nullopt if it is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
Environment ProcessEnvironment();

// What the command line asked for.
struct CommandLine {
  Config config;
  std::optional<std::string> print;  // --help or --version: print this to stdout and exit 0
  bool health_check = false;         // ask the server of this config, which may name no models
};

// InvalidArgument names where the value came from (flag, file and line, environment variable), what
// was found and what was expected.
absl::StatusOr<CommandLine> ReadConfig(int argc, const char* const* argv,
                                       const Environment& environment);

}  // namespace dimmer

#endif  // DIMMER_SERVER_CONFIG_H_
