// `dimmerctl top`: reads WatchStats, one frame per message.
#include <absl/time/time.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <optional>

#include "server/ctl/commands.h"
#include "server/ctl/connection.h"
#include "server/ctl/terminal.h"
#include "server/ctl/top_view.h"

namespace dimmer::ctl {
namespace {

v1::WatchStatsRequest Request(const Options& options) {
  v1::WatchStatsRequest request;
  request.set_model(options.model);
  request.mutable_interval()->set_seconds(absl::ToInt64Seconds(options.interval));
  request.mutable_interval()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(options.interval % absl::Seconds(1))));
  return request;
}

void Draw(const Options& options, const v1::WatchStatsResponse& now,
          std::vector<ModelWindow> windows, const TopHistory& history) {
  const Terminal terminal = LookAtTerminal(options.color);
  const TopFrame frame{.address = options.admin_address,
                       .now = now,
                       .windows = std::move(windows),
                       .keys = terminal.live && isatty(STDIN_FILENO) == 1};
  const TopShape shape{
      .columns = terminal.columns, .rows = terminal.rows, .unicode = terminal.unicode};
  const std::string text = Paint(RenderTop(frame, history, shape), terminal.color);
  if (terminal.live) {
    FullScreen::Show(text);
  } else {
    fmt::print("{}\n", text);
    std::fflush(stdout);
  }
}

}  // namespace

absl::Status RunTop(const Options& options) {
  BlockStopSignals();
  const auto stub = ConnectAdmin(options);
  const bool live = !options.json && LookAtTerminal(options.color).live;
  grpc::ClientContext context;
  std::atomic<bool> stopped = false;
  uint64_t frames = 0;
  grpc::Status status;
  {
    const StopWatcher watcher(live && isatty(STDIN_FILENO) == 1, [&] {
      stopped = true;
      context.TryCancel();
    });
    std::optional<FullScreen> screen;
    const auto reader = stub->WatchStats(&context, Request(options));
    std::optional<v1::WatchStatsResponse> before;
    v1::WatchStatsResponse now;
    TopHistory history;
    while (reader->Read(&now)) {
      if (!before.has_value()) {
        screen.emplace(live);  // only once there is something to show
        if (live) Draw(options, now, {}, history);
      } else {
        const std::vector<ModelWindow> windows = Windows(*before, now);
        history.Add(windows);
        if (options.json) {
          fmt::print("{}", DumpLine(ToJson(now, windows)));
          std::fflush(stdout);
        } else {
          Draw(options, now, windows, history);
        }
        ++frames;
      }
      before = now;
      if (std::ferror(stdout) != 0 || (options.count > 0 && frames >= options.count)) {
        stopped = true;
        context.TryCancel();
        break;
      }
    }
    status = reader->Finish();
  }
  return stopped ? absl::OkStatus() : Explain(status, options, Port::kAdmin);
}

}  // namespace dimmer::ctl
