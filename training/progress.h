// Progress on standard error: a bar with the time left on a terminal, plain lines every few seconds
// elsewhere (no carriage returns in a log file).
//
// Thread safety: all methods may be called from any thread.
#ifndef DIMMER_TRAINING_PROGRESS_H_
#define DIMMER_TRAINING_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <string_view>

namespace dimmer {

class Progress {
 public:
  using Clock = std::chrono::steady_clock;

  // Writes to `out`, not owned. `terminal`: whether it can redraw a line.
  Progress(std::FILE* out, bool terminal) : out_(out), terminal_(terminal) {}
  ~Progress() { EndLine(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // A new bar of `total` units ("steps"). `done` of them were already there, from an earlier run.
  void Start(std::string_view title, std::string_view unit, uint64_t total, uint64_t done = 0);
  void Update(uint64_t done, std::string_view detail);
  void Advance(std::string_view detail);  // one more unit is done
  void Finish();
  // A line of its own, above the bar.
  void Note(std::string_view line);

 private:
  void Draw(bool force);
  void EndLine();

  std::mutex mutex_;
  std::FILE* out_;
  bool terminal_;
  std::string title_, unit_, detail_;
  uint64_t total_ = 0, done_ = 0, resumed_ = 0;
  Clock::time_point started_, drawn_;
  bool open_ = false;  // a bar stands on the current line
};

// "[#####.....]  50%" with 20 cells.
std::string Bar(uint64_t done, uint64_t total);
// "3m05s", "1h02m"; for any number of seconds.
std::string Duration(double seconds);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_PROGRESS_H_
