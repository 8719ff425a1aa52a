#include "server/repository_loader.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "engine/package/repository.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

using Entries = std::vector<RepositoryEntry>;

absl::StatusOr<Entries> ScanAll(const std::vector<std::string>& repositories) {
  Entries all;
  std::map<std::string, std::string> found_in;
  for (const std::string& repository : repositories) {
    DIMMER_ASSIGN_OR_RETURN(Entries entries, ScanRepository(repository));
    for (RepositoryEntry& entry : entries) {
      const auto [other, is_new] = found_in.emplace(entry.model, repository);
      if (!is_new) {
        return absl::InvalidArgumentError(
            fmt::format("model {}: found in {} and in {}, expected it in one repository",
                        entry.model, other->second, repository));
      }
      all.push_back(std::move(entry));
    }
  }
  return all;
}

absl::StatusOr<Entries> Wanted(const Config& config, Entries all) {
  if (config.model_control_mode != "explicit") return all;
  const std::vector<std::string>& names = config.load_model;
  if (std::find(names.begin(), names.end(), "*") != names.end()) return all;
  Entries wanted;
  for (const std::string& name : names) {
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const RepositoryEntry& e) { return e.model == name; });
    if (found == all.end()) {
      return absl::NotFoundError(
          fmt::format("flag --load-model: found no model {} in the repositories", name));
    }
    wanted.push_back(*found);
  }
  return wanted;
}

void LoadOne(const RepositoryEntry& entry, Engine& engine) {
  const absl::Status status = engine.Load(entry);
  if (status.ok()) {
    spdlog::info("model {} version {}: loaded from {}", entry.model, entry.version,
                 entry.directory);
  } else {
    spdlog::error("model {}: not served: {}", entry.model, Message(status));
  }
}

}  // namespace

absl::Status LoadRepositories(const Config& config, Engine& engine) {
  DIMMER_ASSIGN_OR_RETURN(Entries all, ScanAll(config.model_repository));
  DIMMER_ASSIGN_OR_RETURN(const Entries entries, Wanted(config, std::move(all)));
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < entries.size(); i = next++) LoadOne(entries[i], engine);
  };
  const size_t threads =
      std::min<size_t>(entries.size(), std::max(1u, std::thread::hardware_concurrency()));
  {
    std::vector<std::jthread> others;
    try {
      for (size_t i = 1; i < threads; ++i) others.emplace_back(work);
    } catch (const std::system_error&) {
      // No more threads: those there are load everything.
    }
    work();
  }
  if (entries.empty()) spdlog::warn("no model in the repositories");
  return absl::OkStatus();
}

}  // namespace dimmer
