#include "engine/package/version_directory.h"

#include <algorithm>
#include <filesystem>

namespace dimmer {

std::string VersionDirectory(const std::string& path) {
  if (std::filesystem::exists(std::filesystem::path(path) / "config.json")) return path;
  std::string best = path;
  long highest = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_directory() || name.empty() || name.size() > 9 ||
        !std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      continue;
    }
    const long version = std::stol(name);
    if (version > highest) {
      highest = version;
      best = entry.path().string();
    }
  }
  return best;
}

}  // namespace dimmer
