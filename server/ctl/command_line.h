// The command line of dimmerctl, as one value.
//
// Thread safety: pure functions, but for the environment that they read.
#ifndef DIMMER_SERVER_CTL_COMMAND_LINE_H_
#define DIMMER_SERVER_CTL_COMMAND_LINE_H_

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dimmer/v1/admin.pb.h"
#include "dimmer/v1/inference.pb.h"

namespace dimmer::ctl {

struct Options {
  enum class Command : uint8_t { kModels, kDescribe, kSetTau, kClassify, kGenerate, kTop };
  Command command = Command::kModels;

  std::string address = "127.0.0.1:8001";  // inference
  std::string admin_address = "127.0.0.1:8003";
  absl::Duration timeout = absl::Seconds(30);  // of one call
  bool json = false;
  std::string color = "auto";  // or "always", "never"

  std::string model;                           // top: "" is all
  v1::SetTauRequest set_tau;                   // set-tau
  v1::ClassifyRequest classify;                // classify: without its texts
  std::vector<std::string> texts;              // "-": lines of stdin
  v1::GenerateRequest generate;                // generate; prompt "-": all of stdin
  absl::Duration interval = absl::Seconds(1);  // top
  uint64_t count = 0;                          // top: frames; 0: until it is stopped
};

struct CommandLine {
  Options options;
  std::optional<std::string> print;  // --help or --version: print this and exit 0
};

// InvalidArgument says what was found where, and what was expected.
absl::StatusOr<CommandLine> ReadCommandLine(int argc, const char* const* argv);

// "2=0.5", "2:ffn=0.5"
absl::StatusOr<v1::LayerTau> ParseLayerTau(const std::string& text);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_COMMAND_LINE_H_
