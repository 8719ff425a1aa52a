// A file that appears whole or not at all: written beside its place, synced, then renamed.
#ifndef DIMMER_ENGINE_PACKAGE_ATOMIC_FILE_H_
#define DIMMER_ENGINE_PACKAGE_ATOMIC_FILE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <string>

namespace dimmer {

// Move-only, one thread at a time. Without Commit() the destructor removes the temporary file and
// what stood at `path` stays.
class AtomicFile {
 public:
  // NotFound: no such directory. Otherwise as Write().
  static absl::StatusOr<AtomicFile> Create(const std::string& path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) noexcept;
  ~AtomicFile();

  // Internal (ResourceExhausted on a full disk) with path and reason.
  absl::Status Write(const void* data, size_t bytes);
  // fsync, rename to `path`, fsync of the folder.
  absl::Status Commit();

 private:
  AtomicFile(int fd, std::string path, std::string temporary);
  absl::Status Failed(const char* what) const;
  void Abandon();

  int fd_ = -1;
  std::string path_;
  std::string temporary_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_PACKAGE_ATOMIC_FILE_H_
