// The commands of dimmerctl. Each prints its answer to stdout.
//
// Errors: what the server answered, or that it cannot be reached, in words for the operator.
#ifndef DIMMER_SERVER_CTL_COMMANDS_H_
#define DIMMER_SERVER_CTL_COMMANDS_H_

#include <absl/status/status.h>

#include "server/ctl/command_line.h"

namespace dimmer::ctl {

absl::Status RunModels(const Options& options);
absl::Status RunDescribe(const Options& options);
absl::Status RunSetTau(const Options& options);
absl::Status RunClassify(const Options& options);
absl::Status RunGenerate(const Options& options);
absl::Status RunTop(const Options& options);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_COMMANDS_H_
