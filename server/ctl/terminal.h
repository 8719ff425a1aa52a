// What is known of the terminal, and the live view's hold on it.
#ifndef DIMMER_SERVER_CTL_TERMINAL_H_
#define DIMMER_SERVER_CTL_TERMINAL_H_

#include <termios.h>

#include <cstddef>
#include <functional>
#include <string>
#include <thread>

namespace dimmer::ctl {

struct Terminal {
  bool live = false;  // stdout is a terminal: frames may overwrite one another
  bool color = false;
  bool unicode = false;  // the locale's characters are UTF-8
  size_t columns = 100;  // where stdout is no terminal: of the variable COLUMNS, or 100
  size_t rows = 0;       // 0: as many as there are
};

// `color`: "auto", "always" or "never". Reads the size anew at each call.
Terminal LookAtTerminal(const std::string& color);

// Blocks SIGINT and SIGTERM in this thread and those it starts, so that StopWatcher can take them.
// To be called before any thread is started.
void BlockStopSignals();

// Calls `stop` once, from a thread of its own, at SIGINT, SIGTERM or, with `keys`, at the key q or
// the end of stdin.
class StopWatcher {
 public:
  StopWatcher(bool keys, std::function<void()> stop);
  ~StopWatcher();
  StopWatcher(const StopWatcher&) = delete;
  StopWatcher& operator=(const StopWatcher&) = delete;

 private:
  void Watch(bool keys) const;

  const std::function<void()> stop_;
  int signals_ = -1;
  int done_ = -1;
  std::thread thread_;
};

// Takes the whole screen, without a cursor and without echo; gives it back at the end. Does nothing
// unless `live`.
class FullScreen {
 public:
  explicit FullScreen(bool live);
  ~FullScreen();
  FullScreen(const FullScreen&) = delete;
  FullScreen& operator=(const FullScreen&) = delete;

  // Replaces what is shown. `text` ends each line with a newline.
  static void Show(const std::string& text);

 private:
  const bool live_;
  bool keys_ = false;
  termios before_ = {};
};

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_TERMINAL_H_
