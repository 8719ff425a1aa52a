// dimmer-server: configuration -> log -> models, services and ports -> wait for a signal -> drain.
// With --health-check: asks a server that runs already.
// Exit status: 0 after a drain, 1 where it failed, 2 where it was called wrongly.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <string.h>

#include <chrono>
#include <cstdio>

#include "engine/util/status.h"
#include "server/config.h"
#include "server/health_probe.h"
#include "server/logging.h"
#include "server/server.h"
#include "server/signals.h"

namespace dimmer {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr std::chrono::seconds kHealthTimeout(5);

std::string CountModels(const Engine& engine) {
  size_t ready = 0, all = 0;
  for (const ModelStatus& model : engine.Models()) {
    ++all;
    if (model.ready) ++ready;
  }
  return fmt::format("{} of {} models", ready, all);
}

int CheckHealth(const Config& config) {
  const absl::Status health =
      ProbeHealth(config.address, static_cast<int>(config.grpc_port), kHealthTimeout);
  if (health.ok()) return 0;
  fmt::print(stderr, "dimmer-server: {}\n", Message(health));
  return kFailed;
}

int Run(int argc, const char* const* argv) {
  const auto start = std::chrono::steady_clock::now();
  const auto line = ReadConfig(argc, argv, ProcessEnvironment());
  if (!line.ok()) {
    fmt::print(stderr, "dimmer-server: {}\nTry dimmer-server --help\n", Message(line.status()));
    return kUsage;
  }
  if (line->print.has_value()) {
    fmt::print("{}", *line->print);
    return 0;
  }
  const Config& config = line->config;
  if (line->health_check) return CheckHealth(config);
  Signals& signals = *new Signals;  // its thread may outlive this function
  SetUpLogging(config.log_format, config.log_level);
  auto server = Server::Start(config);
  if (!server.ok()) {
    spdlog::error("not started: {}", Message(server.status()));
    return kFailed;
  }
  signals.Serving();
  fmt::print("dimmer-server {} listens on {}\n", DIMMER_VERSION, (*server)->Describe());
  std::fflush(stdout);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  spdlog::info("serving {} after {:.3f} s", CountModels((*server)->engine()), took.count());

  const int number = signals.Wait();
  spdlog::info("{}: draining, for {} s at most; again: exit at once", strsignal(number),
               config.exit_timeout_secs);
  const bool answered = (*server)->Stop(std::chrono::seconds(config.exit_timeout_secs));
  if (!answered) spdlog::error("calls were still running after --exit-timeout-secs: cancelled");
  spdlog::info("stopped");
  return answered ? 0 : kFailed;
}

}  // namespace
}  // namespace dimmer

int main(int argc, char** argv) { return dimmer::Run(argc, argv); }
