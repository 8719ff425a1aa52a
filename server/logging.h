// The process' log: lines to stderr, as text or as JSON objects. Call sites use spdlog directly.
//
// Thread safety: SetUpLogging() once, before other threads start; logging from any thread.
#ifndef DIMMER_SERVER_LOGGING_H_
#define DIMMER_SERVER_LOGGING_H_

#include <string>
#include <string_view>

namespace dimmer {

// `format` is "text" or "json", `level` "debug", "info", "warning" or "error". What gRPC and
// protobuf log by themselves comes the same way, as debug lines: our own errors say it in our
// words.
void SetUpLogging(std::string_view format, const std::string& level);

}  // namespace dimmer

#endif  // DIMMER_SERVER_LOGGING_H_
