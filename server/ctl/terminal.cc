#include "server/ctl/terminal.h"

#include <absl/strings/numbers.h>
#include <fmt/format.h>
#include <langinfo.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

namespace dimmer::ctl {
namespace {

constexpr uint32_t kMostColumns = 1000;

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

Terminal LookAtTerminal(const std::string& color) {
  Terminal terminal;
  terminal.live = isatty(STDOUT_FILENO) == 1;
  const char* no_color = std::getenv("NO_COLOR");
  const char* kind = std::getenv("TERM");
  const bool dumb = kind != nullptr && std::string_view(kind) == "dumb";
  if (dumb) terminal.live = false;
  const bool wanted = no_color == nullptr || *no_color == '\0';
  terminal.color = color == "always" || (color == "auto" && terminal.live && wanted);
  std::setlocale(LC_CTYPE, "");
  terminal.unicode = std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  winsize size = {};
  uint32_t columns = 0;
  if (terminal.live && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    terminal.columns = size.ws_col;
    terminal.rows = size.ws_row;
  } else if (const char* text = std::getenv("COLUMNS"); text != nullptr &&
                                                        absl::SimpleAtoi(text, &columns) &&
                                                        columns > 0 && columns <= kMostColumns) {
    terminal.columns = columns;
  }
  return terminal;
}

void BlockStopSignals() {
  const sigset_t set = StopSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

StopWatcher::StopWatcher(bool keys, std::function<void()> stop)
    : stop_(std::move(stop)), done_(eventfd(0, EFD_CLOEXEC)) {
  const sigset_t set = StopSignals();
  signals_ = signalfd(-1, &set, SFD_CLOEXEC);
  thread_ = std::thread([this, keys] { Watch(keys); });
}

StopWatcher::~StopWatcher() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(done_, &one, sizeof(one));
  thread_.join();
  close(done_);
  close(signals_);
}

void StopWatcher::Watch(bool keys) const {
  pollfd files[] = {{.fd = done_, .events = POLLIN},
                    {.fd = signals_, .events = POLLIN},
                    {.fd = keys ? STDIN_FILENO : -1, .events = POLLIN}};
  while (true) {
    if (poll(files, std::size(files), -1) < 0) {
      if (errno == EINTR) continue;
      return;
    }
    if (files[0].revents != 0) return;
    bool stop = files[1].revents != 0;
    if (files[2].revents != 0) {
      char key = 0;
      stop = stop || read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q';
    }
    if (stop) {
      stop_();
      return;
    }
  }
}

FullScreen::FullScreen(bool live) : live_(live) {
  if (!live_) return;
  if (isatty(STDIN_FILENO) == 1 && tcgetattr(STDIN_FILENO, &before_) == 0) {
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    keys_ = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
  }
  fmt::print("\033[?1049h\033[?25l\033[2J");  // other screen, no cursor, empty
  std::fflush(stdout);
}

FullScreen::~FullScreen() {
  if (!live_) return;
  fmt::print("\033[?25h\033[?1049l");
  std::fflush(stdout);
  if (keys_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
}

void FullScreen::Show(const std::string& text) {
  // Each line is written over the last frame's and cleared to its end, so nothing flickers.
  std::string out = "\033[H";
  for (size_t start = 0; start < text.size();) {
    const size_t end = text.find('\n', start);
    out += text.substr(start, end - start) + "\033[K";
    start = end == std::string::npos ? text.size() : end + 1;
    if (start < text.size()) out += "\r\n";
  }
  fmt::print("{}\033[J", out);
  std::fflush(stdout);
}

}  // namespace dimmer::ctl
