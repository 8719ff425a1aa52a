#include "server/process_collector.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_split.h>
#include <prometheus/metric_family.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

namespace dimmer {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily One(const char* name, const char* help, MetricType type, double value) {
  MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  prometheus::ClientMetric metric;
  if (type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family.metric.push_back(metric);
  return family;
}

std::string Contents(const char* path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Fields of /proc/self/stat from the third on; the second may hold spaces. proc(5).
std::vector<std::string> StatFields() {
  const std::string stat = Contents("/proc/self/stat");
  const size_t end = stat.rfind(')');
  if (end == std::string::npos) return {};
  return absl::StrSplit(stat.substr(end + 1), ' ', absl::SkipEmpty());
}

std::optional<double> BootTime() {
  std::istringstream stat(Contents("/proc/stat"));
  for (std::string line; std::getline(stat, line);) {
    double seconds = 0;
    if (line.rfind("btime ", 0) == 0 && absl::SimpleAtod(line.substr(6), &seconds)) return seconds;
  }
  return std::nullopt;
}

}  // namespace

std::vector<MetricFamily> ProcessCollector::Collect() const {
  std::vector<MetricFamily> families;
  const std::vector<std::string> stat = StatFields();
  const auto field = [&](size_t number) -> std::optional<double> {  // numbers as in proc(5)
    double value = 0;
    if (stat.size() <= number - 3 || !absl::SimpleAtod(stat[number - 3], &value)) return {};
    return value;
  };
  const double ticks = double(sysconf(_SC_CLK_TCK));
  const auto user = field(14), system = field(15), start = field(22), virtual_bytes = field(23),
             resident_pages = field(24);
  if (user && system) {
    families.push_back(One("process_cpu_seconds_total", "Processor time, user and system",
                           MetricType::Counter, (*user + *system) / ticks));
  }
  const auto boot = BootTime();
  if (start && boot) {
    families.push_back(One("process_start_time_seconds", "Start, since the Unix epoch",
                           MetricType::Gauge, *boot + *start / ticks));
  }
  if (virtual_bytes) {
    families.push_back(
        One("process_virtual_memory_bytes", "Virtual memory", MetricType::Gauge, *virtual_bytes));
  }
  if (resident_pages) {
    families.push_back(One("process_resident_memory_bytes", "Resident memory", MetricType::Gauge,
                           *resident_pages * double(sysconf(_SC_PAGESIZE))));
  }
  std::error_code error;
  size_t open = 0;
  for (auto it = std::filesystem::directory_iterator("/proc/self/fd", error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    ++open;
  }
  if (!error) {
    families.push_back(
        One("process_open_fds", "Open file descriptors", MetricType::Gauge, double(open)));
  }
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    families.push_back(One("process_max_fds", "Limit of open file descriptors", MetricType::Gauge,
                           double(limit.rlim_cur)));
  }
  return families;
}

}  // namespace dimmer
