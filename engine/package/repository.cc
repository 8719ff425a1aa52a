#include "engine/package/repository.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "engine/package/json_fields.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr uint32_t kMaxBatchTokens = 1 << 20;
constexpr uint32_t kMaxBatchSize = 1 << 16;
constexpr uint32_t kMaxKvCacheTokens = 1 << 28;

// At the line of the key: an absent value is reported at the line of what follows it.
absl::Status WrongValue(const std::string& path, const YAML::Node& key, const YAML::Node& node,
                        std::string_view expected) {
  const std::string found = node.IsScalar() ? node.Scalar() : "no plain value";
  return absl::InvalidArgumentError(
      fmt::format("{}:{}: {}: found {}, expected {}", path, key.Mark().line + 1,
                  key.IsScalar() ? key.Scalar() : "key", found, expected));
}

absl::Status ReadTau(const std::string& path, const YAML::Node& key, const YAML::Node& node,
                     std::optional<double>& out) {
  double value = 0;
  if (!YAML::convert<double>::decode(node, value) || !(value >= 0 && value <= 1)) {
    return WrongValue(path, key, node, "a number in [0, 1]");
  }
  out = value;
  return absl::OkStatus();
}

absl::Status ReadCount(const std::string& path, const YAML::Node& key, const YAML::Node& node,
                       uint32_t min, uint32_t max, uint32_t& out) {
  int64_t value = 0;
  if (!YAML::convert<int64_t>::decode(node, value) || value < min || value > max) {
    return WrongValue(path, key, node, fmt::format("an integer in [{}, {}]", min, max));
  }
  out = static_cast<uint32_t>(value);
  return absl::OkStatus();
}

absl::Status ReadKey(const std::string& path, const std::string& key, const YAML::Node& key_node,
                     const YAML::Node& value, ServingConfig& config) {
  if (key == "default_tau") return ReadTau(path, key_node, value, config.default_tau);
  if (key == "min_tau") return ReadTau(path, key_node, value, config.min_tau);
  if (key == "max_tau") return ReadTau(path, key_node, value, config.max_tau);
  if (key == "max_batch_tokens") {
    return ReadCount(path, key_node, value, 1, kMaxBatchTokens, config.max_batch_tokens);
  }
  if (key == "max_batch_size") {
    return ReadCount(path, key_node, value, 1, kMaxBatchSize, config.max_batch_size);
  }
  if (key == "max_sequence_tokens") {
    return ReadCount(path, key_node, value, 0, kMaxBatchTokens, config.max_sequence_tokens);
  }
  if (key == "kv_cache_tokens") {
    return ReadCount(path, key_node, value, 0, kMaxKvCacheTokens, config.kv_cache_tokens);
  }
  return absl::InvalidArgumentError(fmt::format(
      "{}:{}: found unknown key {}, expected default_tau, min_tau, max_tau, max_batch_tokens, "
      "max_batch_size, max_sequence_tokens or kv_cache_tokens",
      path, key_node.Mark().line + 1, key));
}

absl::Status CheckBounds(const std::string& path, const ServingConfig& config) {
  const double low = config.min_tau.value_or(0), high = config.max_tau.value_or(1);
  if (low > high) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found min_tau {} above max_tau {}", path, low, high));
  }
  if (config.default_tau && (*config.default_tau < low || *config.default_tau > high)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: default_tau: found {}, expected a number within [min_tau, max_tau] = "
                    "[{}, {}]",
                    path, *config.default_tau, low, high));
  }
  return absl::OkStatus();
}

absl::StatusOr<ServingConfig> ReadServingConfig(const std::string& path) {
  ServingConfig config;
  std::error_code error;
  if (!fs::exists(path, error)) return config;
  DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMaxConfigBytes));
  try {
    const YAML::Node root = YAML::Load(text);
    if (root.IsNull()) return config;
    if (!root.IsMap()) {
      return absl::InvalidArgumentError(fmt::format("{}: expected keys and values", path));
    }
    std::set<std::string> seen;
    for (const auto& item : root) {
      if (!item.first.IsScalar()) return WrongValue(path, item.first, item.first, "a name");
      if (!seen.insert(item.first.Scalar()).second) {
        return absl::InvalidArgumentError(fmt::format("{}:{}: {}: found it twice, expected it once",
                                                      path, item.first.Mark().line + 1,
                                                      item.first.Scalar()));
      }
      DIMMER_RETURN_IF_ERROR(ReadKey(path, item.first.Scalar(), item.first, item.second, config));
    }
  } catch (const YAML::Exception& exception) {
    return absl::InvalidArgumentError(
        fmt::format("{}:{}: {}", path, exception.mark.line + 1, exception.msg));
  }
  DIMMER_RETURN_IF_ERROR(CheckBounds(path, config));
  return config;
}

// "12" -> 12; 0 if the name is no version.
uint64_t VersionNumber(const std::string& name) {
  if (name.empty() || name.size() > 18 || name[0] == '0') return 0;
  if (!std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; })) return 0;
  return std::stoull(name);
}

// Models' names go into JSON and protobuf strings, which hold nothing else.
bool IsUtf8(const std::string& text) try {
  nlohmann::json(text).dump();
  return true;
} catch (const nlohmann::json::type_error&) {
  return false;
}

// In ASCII: "caf\xe9".
std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    escaped += c >= ' ' && c <= '~' ? std::string(1, c)
                                    : fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  return escaped;
}

RepositoryEntry ScanModel(const fs::path& directory) {
  RepositoryEntry entry;
  entry.model = directory.filename().string();
  if (!IsUtf8(entry.model)) {
    entry.model = Escaped(entry.model);
    entry.status = absl::InvalidArgumentError(
        fmt::format("{}: found a folder whose name is not UTF-8, expected a model's name",
                    Escaped(directory.string())));
    return entry;
  }
  uint64_t highest = 0;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const uint64_t version = VersionNumber(it->path().filename().string());
    std::error_code not_a_folder;
    if (version > highest && it->is_directory(not_a_folder)) {
      highest = version;
      entry.version = it->path().filename().string();
      entry.directory = it->path().string();
    }
  }
  if (error) {
    entry.status = absl::InvalidArgumentError(
        fmt::format("{}: can't be read: {}", directory.string(), error.message()));
  } else if (highest == 0) {
    entry.status = absl::NotFoundError(
        fmt::format("{}: no version folder, expected {}/1 or another positive number",
                    directory.string(), entry.model));
  }
  absl::StatusOr<ServingConfig> serving = ReadServingConfig((directory / "config.yaml").string());
  if (!serving.ok()) {
    if (entry.status.ok()) entry.status = serving.status();
  } else {
    entry.serving = *serving;
  }
  return entry;
}

}  // namespace

absl::StatusOr<std::vector<RepositoryEntry>> ScanRepository(const std::string& root) {
  std::error_code error;
  std::vector<RepositoryEntry> entries;
  fs::directory_iterator it(root, error);
  for (const fs::directory_iterator end; !error && it != end; it.increment(error)) {
    std::error_code not_a_folder;
    const bool hidden = it->path().filename().string().starts_with('.');
    if (!hidden && it->is_directory(not_a_folder)) entries.push_back(ScanModel(it->path()));
  }
  if (error) {
    return absl::NotFoundError(
        fmt::format("model repository {}: can't be read: {}", root, error.message()));
  }
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.model < b.model; });
  return entries;
}

}  // namespace dimmer
