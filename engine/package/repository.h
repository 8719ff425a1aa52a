// A model repository on disk: <root>/<model>/config.yaml (optional) and <root>/<model>/<version>/.
#ifndef DIMMER_ENGINE_PACKAGE_REPOSITORY_H_
#define DIMMER_ENGINE_PACKAGE_REPOSITORY_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace dimmer {

// <model>/config.yaml: how one model is served. Unknown keys are errors with file and line.
struct ServingConfig {
  std::optional<double> default_tau;  // default: the package's
  std::optional<double> min_tau;
  std::optional<double> max_tau;
  uint32_t max_batch_tokens = 4096;
  uint32_t max_batch_size = 64;
  uint32_t max_sequence_tokens = 0;  // 0: the model's maximum
  // Tokens whose keys and values fit in memory at the same time, all generations together. 0: as
  // many as 64 times the longest context or 1 GiB takes, whichever is less, but one context.
  uint32_t kv_cache_tokens = 0;
};

struct RepositoryEntry {
  std::string model;
  std::string version;  // a positive number; only the highest is listed
  std::string directory;
  ServingConfig serving;
  // Not OK if this entry can't be served (bad config.yaml, no version, a name that is not UTF-8,
  // which `model` then has with its bytes escaped); the others still are.
  absl::Status status;
};

// NotFound if `root` is not a readable directory. Hidden entries are skipped.
absl::StatusOr<std::vector<RepositoryEntry>> ScanRepository(const std::string& root);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_PACKAGE_REPOSITORY_H_
