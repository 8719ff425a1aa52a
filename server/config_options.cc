// The table of options.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <limits>

#include "server/config.h"

namespace dimmer {
namespace {

constexpr uint64_t kMaxMillis = std::numeric_limits<int32_t>::max();
constexpr uint64_t kMaxCount = 1u << 20;

std::vector<OptionSpec> MakeOptions() {
  using Text = OptionSpec::Text;
  using List = OptionSpec::List;
  using Number = OptionSpec::Number;
  using Switch = OptionSpec::Switch;
  using Choice = OptionSpec::Choice;
  const std::string models = "Models", ports = "Ports", work = "Work", logs = "Logs and metrics",
                    grpc = "gRPC";
  return {
      {"model-repository", models, "DIR",
       "Folder with models: DIR/MODEL/VERSION/. May be repeated; needed at least once",
       List{&Config::model_repository}},
      {"model-control-mode", models, "MODE",
       "none: load every model at start; explicit: only those of --load-model",
       Choice{&Config::model_control_mode, {"none", "explicit"}}},
      {"load-model", models, "NAME",
       "Model to load at start with --model-control-mode explicit; * is all. May be repeated",
       List{&Config::load_model}},
      {"config", models, "FILE", "YAML file with any of these options", Text{&Config::config}},
      {"id", models, "NAME", "Name of this server in metadata", Text{&Config::id}},
      {"address", ports, "IP",
       "Interface of the HTTP, gRPC and metrics ports. Admin is always on 127.0.0.1",
       Text{&Config::address}},
      {"http-port", ports, "PORT", "/v2/health/live and /v2/health/ready. 0 picks a free port",
       Number{&Config::http_port, 0, 65535}},
      {"grpc-port", ports, "PORT", "Inference. 0 picks a free port",
       Number{&Config::grpc_port, 0, 65535}},
      {"metrics-port", ports, "PORT", "/metrics. 0 picks a free port",
       Number{&Config::metrics_port, 0, 65535}},
      {"admin-port", ports, "PORT", "Admin service, loopback only. 0 picks a free port",
       Number{&Config::admin_port, 0, 65535}},
      {"threads", work, "N", "Compute threads in all; 0: one per core",
       Number{&Config::threads, 0, 1024}},
      {"workers", work, "N", "Batches computed at the same time; 0: a quarter of --threads",
       Number{&Config::workers, 0, 1024}},
      {"max-queue-size", work, "N",
       "Texts that may wait, all models together; more are refused with RESOURCE_EXHAUSTED",
       Number{&Config::max_queue_size, 1, kMaxCount}},
      {"max-texts", work, "N", "Texts in one call", Number{&Config::max_texts, 1, kMaxCount}},
      {"reader-timeout-secs", work, "SECONDS",
       "A stream of text that its client has not read for so long ends with ABORTED",
       Number{&Config::reader_timeout_secs, 1, 86400}},
      {"exit-timeout-secs", work, "SECONDS",
       "How long SIGTERM or SIGINT waits for running calls; a second signal ends at once",
       Number{&Config::exit_timeout_secs, 0, 86400}},
      {"state-dir", work, "DIR", "Where SetTau is kept over a restart; empty: nowhere",
       Text{&Config::state_dir}},
      {"log-format", logs, "FORMAT", "text, or json: one object a line",
       Choice{&Config::log_format, {"text", "json"}}},
      {"log-level", logs, "LEVEL", "Least severe lines to write, to stderr",
       Choice{&Config::log_level, {"debug", "info", "warning", "error"}}},
      {"metrics-per-expert", logs, "MODE",
       "dimmer_expert_tokens_total: auto while all models together stay under 2048 series",
       Choice{&Config::metrics_per_expert, {"auto", "on", "off"}}},
      {"grpc-max-message-bytes", grpc, "N", "Longest request that is read",
       Number{&Config::grpc_max_message_bytes, 1024, 1u << 30}},
      {"grpc-keepalive-time", grpc, "MS", "Idle time after which the server pings",
       Number{&Config::grpc_keepalive_time, 1, kMaxMillis}},
      {"grpc-keepalive-timeout", grpc, "MS", "How long a ping may stay unanswered",
       Number{&Config::grpc_keepalive_timeout, 1, kMaxMillis}},
      {"grpc-keepalive-permit-without-calls", grpc, "BOOL", "Ping connections without calls too",
       Switch{&Config::grpc_keepalive_permit_without_calls}},
      {"grpc-http2-max-pings-without-data", grpc, "N", "Pings without data; 0: no limit",
       Number{&Config::grpc_http2_max_pings_without_data, 0, kMaxCount}},
      {"grpc-http2-min-recv-ping-interval-without-data", grpc, "MS",
       "Least time between a client's pings",
       Number{&Config::grpc_http2_min_recv_ping_interval_without_data, 0, kMaxMillis}},
      {"grpc-http2-max-ping-strikes", grpc, "N",
       "Pings that come too early before the connection is closed; 0: no limit",
       Number{&Config::grpc_http2_max_ping_strikes, 0, kMaxCount}},
      {"grpc-max-connection-age", grpc, "MS", "Age at which a connection is closed; 0: never",
       Number{&Config::grpc_max_connection_age, 0, kMaxMillis}},
      {"grpc-max-connection-age-grace", grpc, "MS",
       "Time for its calls to end after that; 0: no limit",
       Number{&Config::grpc_max_connection_age_grace, 0, kMaxMillis}},
  };
}

std::string Replaced(std::string text, char from, char to) {
  std::replace(text.begin(), text.end(), from, to);
  return text;
}

}  // namespace

const std::vector<OptionSpec>& ConfigOptions() {
  static const auto* options = new std::vector<OptionSpec>(MakeOptions());
  return *options;
}

std::string OptionSpec::Flag() const { return "--" + name; }

std::string OptionSpec::YamlKey() const { return Replaced(name, '-', '_'); }

std::string OptionSpec::Environment() const {
  std::string upper = YamlKey();
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return "DIMMER_" + upper;
}

std::string OptionSpec::Default() const {
  const Config defaults;
  return std::visit(
      [&](const auto& kind) -> std::string {
        using Kind = std::decay_t<decltype(kind)>;
        if constexpr (std::is_same_v<Kind, List>) {
          return fmt::format("{}", fmt::join(defaults.*kind.field, ","));
        } else {
          return fmt::format("{}", defaults.*kind.field);
        }
      },
      field);
}

}  // namespace dimmer
