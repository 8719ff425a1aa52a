// dimmer-bench: measures models and kernels without a server. Exit status 0, 1 (failed), 2 (usage).
#include <cstdio>
#include <exception>

#include "bench/bench.h"
#include "engine/util/status.h"

int main(int argc, char** argv) {
  CLI::App app("Measures models and kernels without a server");
  app.set_version_flag("--version", std::string("dimmer-bench ") + DIMMER_VERSION);
  app.require_subcommand(1);
  dimmer::bench::Command command;
  dimmer::bench::AddModelCommand(app, command);
  dimmer::bench::AddLogitsCommand(app, command);
  dimmer::bench::AddGenerateCommand(app, command);
  dimmer::bench::AddFfnCommand(app, command);
  dimmer::bench::AddTokenizerCommand(app, command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    const absl::Status status = command();
    if (status.ok()) return 0;
    fmt::print(stderr, "dimmer-bench: {}\n", dimmer::Message(status));
  } catch (const std::exception& error) {
    fmt::print(stderr, "dimmer-bench: {}\n", error.what());
  }
  return 1;
}
