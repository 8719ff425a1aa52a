// dimmerctl: looks at a running dimmer-server and turns its light.
// Exit status: 0; 1 where the server refused or cannot be reached; 2 where it was called wrongly.
#include <fmt/format.h>

#include <cstdio>

#include "engine/util/status.h"
#include "server/ctl/commands.h"

namespace dimmer::ctl {
namespace {

absl::Status Run(const Options& options) {
  switch (options.command) {
    case Options::Command::kModels:
      return RunModels(options);
    case Options::Command::kDescribe:
      return RunDescribe(options);
    case Options::Command::kSetTau:
      return RunSetTau(options);
    case Options::Command::kClassify:
      return RunClassify(options);
    case Options::Command::kGenerate:
      return RunGenerate(options);
    case Options::Command::kTop:
      return RunTop(options);
  }
  return absl::OkStatus();
}

int Main(int argc, const char* const* argv) {
  const auto line = ReadCommandLine(argc, argv);
  if (!line.ok()) {
    fmt::print(stderr, "dimmerctl: {}\nTry dimmerctl --help\n", Message(line.status()));
    return 2;
  }
  if (line->print.has_value()) {
    fmt::print("{}", *line->print);
    return 0;
  }
  const absl::Status status = Run(line->options);
  if (!status.ok()) {
    fmt::print(stderr, "dimmerctl: {}\n", Message(status));
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace dimmer::ctl

int main(int argc, char** argv) { return dimmer::ctl::Main(argc, argv); }
