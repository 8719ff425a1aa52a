#include "training/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace dimmer {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kLogLine = std::chrono::seconds(10);
constexpr uint64_t kCells = 20;

}  // namespace

std::string Bar(uint64_t done, uint64_t total) {
  const uint64_t parts = total == 0 ? 0 : std::min(done, total);
  const uint64_t filled = total == 0 ? 0 : parts * kCells / total;
  return fmt::format("[{}{}] {:3d}%", std::string(filled, '#'), std::string(kCells - filled, '.'),
                     total == 0 ? 0 : parts * 100 / total);
}

std::string Duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::clamp(seconds, 0.0, 1e9)));
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{:02d}s", whole / 60, whole % 60);
  return fmt::format("{}h{:02d}m", whole / 3600, whole / 60 % 60);
}

void Progress::Start(std::string_view title, std::string_view unit, uint64_t total, uint64_t done) {
  const std::lock_guard lock(mutex_);
  EndLine();
  title_ = title;
  unit_ = unit;
  detail_.clear();
  total_ = total;
  done_ = resumed_ = done;
  started_ = Clock::now();
  Draw(true);
}

void Progress::Update(uint64_t done, std::string_view detail) {
  const std::lock_guard lock(mutex_);
  done_ = done;
  detail_ = detail;
  Draw(false);
}

void Progress::Advance(std::string_view detail) {
  const std::lock_guard lock(mutex_);
  ++done_;
  detail_ = detail;
  Draw(false);
}

void Progress::Finish() {
  const std::lock_guard lock(mutex_);
  done_ = total_;
  Draw(true);
  EndLine();
}

void Progress::Note(std::string_view line) {
  const std::lock_guard lock(mutex_);
  if (open_) fmt::print(out_, "\r\033[K");
  fmt::print(out_, "{}\n", line);
  std::fflush(out_);
  if (open_) Draw(true);
}

void Progress::Draw(bool force) {
  const Clock::time_point now = Clock::now();
  if (!force && now - drawn_ < (terminal_ ? Clock::duration(kRedraw) : Clock::duration(kLogLine))) {
    return;
  }
  drawn_ = now;
  const double elapsed = std::chrono::duration<double>(now - started_).count();
  const uint64_t fresh = done_ - std::min(done_, resumed_);
  const double rate = elapsed > 0 ? static_cast<double>(fresh) / elapsed : 0;
  std::string line =
      fmt::format("{:<9} {} {}/{} {}", title_, Bar(done_, total_), done_, total_, unit_);
  if (fresh > 0 && done_ < total_) {
    line += fmt::format("  {:.1f}/s  ETA {}", rate,
                        Duration(static_cast<double>(total_ - done_) / std::max(rate, 1e-9)));
  } else if (fresh > 0) {
    line += fmt::format("  in {}", Duration(elapsed));
  }
  if (!detail_.empty()) line += "  " + detail_;
  if (terminal_) {
    fmt::print(out_, "\r\033[K{}", line);
    open_ = true;
  } else {
    fmt::print(out_, "{}\n", line);
  }
  std::fflush(out_);
}

void Progress::EndLine() {
  if (open_) fmt::print(out_, "\n");
  open_ = false;
}

}  // namespace dimmer
