// The models that an engine serves, by name, and how their last load went.
//
// Thread safety: all methods may be called from any thread.
#ifndef DIMMER_ENGINE_MODEL_TABLE_H_
#define DIMMER_ENGINE_MODEL_TABLE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/request_walk.h"

namespace dimmer {

// Opens, checks and packs one version, with its tokenizer. Everything that is wrong with a package
// shows here.
absl::StatusOr<std::shared_ptr<const LoadedModel>> LoadFromDisk(const RepositoryEntry& entry);

class ModelTable {
 public:
  // Serves `loaded` under its name from now on, in place of another version.
  void Serve(std::shared_ptr<const LoadedModel> loaded, double load_seconds);
  // Remembers why a load failed; what was served is served on.
  void Fail(const RepositoryEntry& entry, const absl::Status& status, double load_seconds);

  std::vector<ModelStatus> All() const;
  // As Engine::Find.
  absl::StatusOr<std::shared_ptr<const LoadedModel>> Find(const std::string& model,
                                                          const std::string& version) const;

 private:
  struct Entry {
    ModelStatus status;
    std::shared_ptr<const LoadedModel> loaded;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODEL_TABLE_H_
