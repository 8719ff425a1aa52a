// `dimmerctl generate`: the text to stdout as it comes, what it cost to stderr.
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <string>

#include "engine/util/status.h"
#include "server/ctl/commands.h"
#include "server/ctl/connection.h"
#include "server/ctl/generate_view.h"
#include "server/ctl/json.h"
#include "server/ctl/terminal.h"

namespace dimmer::ctl {
namespace {

using Clock = std::chrono::steady_clock;

// All of standard input, without the newline that ends its last line.
std::string ReadInput() {
  std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

// Shows the messages of one stream.
class Printer {
 public:
  explicit Printer(const Options& options)
      : options_(options), terminal_(LookAtTerminal(options.color)) {}

  void Begin(const std::string& prompt) {
    if (options_.json || !terminal_.live) return;
    Write(Paint(Line{{PrintableText(prompt), kDim}}, terminal_.color));
  }

  void Add(const v1::GenerateResponse& message) {
    if (!message.token_ids().empty()) {
      times_.last = std::chrono::duration<double>(Clock::now() - start_).count();
      if (times_.first == 0) times_.first = times_.last;
    }
    if (message.has_usage()) last_ = message;
    if (options_.json) {
      Write(DumpLine(ToJson(message)));
    } else {
      Write(terminal_.live ? PrintableText(message.text()) : message.text());
    }
  }

  // The text's last line ends, however the stream did.
  void End() {
    if (!options_.json && !at_line_start_) Write("\n");
  }

  absl::Status Summary() {
    if (!last_.has_usage()) {
      return absl::InternalError(
          fmt::format("{}: the stream ended without a usage, expected it in the last message",
                      options_.address));
    }
    if (options_.json) return absl::OkStatus();
    const bool sampled = options_.generate.temperature() > 0;
    fmt::print(stderr, "{}", Paint(RenderGenerated(last_, times_, sampled), terminal_.color));
    return absl::OkStatus();
  }

 private:
  void Write(const std::string& text) {
    if (text.empty()) return;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    at_line_start_ = text.back() == '\n';
  }

  const Options& options_;
  const Terminal terminal_;
  const Clock::time_point start_ = Clock::now();
  bool at_line_start_ = true;
  GenerateTimes times_;
  v1::GenerateResponse last_;
};

}  // namespace

absl::Status RunGenerate(const Options& options) {
  v1::GenerateRequest request = options.generate;
  if (request.prompt() == "-") request.set_prompt(ReadInput());
  BlockStopSignals();  // once nothing waits for a key any more
  const auto stub = ConnectInference(options);
  grpc::ClientContext context;
  SetDeadline(options, &context);
  std::atomic<bool> stopped = false;
  grpc::Status status;
  Printer printer(options);
  {
    const StopWatcher watcher(false, [&] {
      stopped = true;
      context.TryCancel();
    });
    const auto reader = stub->Generate(&context, request);
    v1::GenerateResponse message;
    for (bool first = true; reader->Read(&message); first = false) {
      if (first) printer.Begin(request.prompt());  // only if it is not refused
      printer.Add(message);
      if (std::ferror(stdout) != 0) context.TryCancel();  // nobody reads on
    }
    status = reader->Finish();
  }
  printer.End();
  if (stopped && !status.ok()) return absl::CancelledError("stopped before the end");
  DIMMER_RETURN_IF_ERROR(Explain(status, options, Port::kInference));
  return printer.Summary();
}

}  // namespace dimmer::ctl
