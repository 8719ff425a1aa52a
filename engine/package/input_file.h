// A regular file, open for reading, with every error of the system as a Status that names the path.
#ifndef DIMMER_ENGINE_PACKAGE_INPUT_FILE_H_
#define DIMMER_ENGINE_PACKAGE_INPUT_FILE_H_

#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace dimmer {

// Move-only, one thread at a time. Closed by the destructor.
class InputFile {
 public:
  // NotFound: no such file. PermissionDenied. InvalidArgument: not a regular file (a directory, a
  // pipe), or what else the system says.
  static absl::StatusOr<InputFile> Open(const std::string& path);
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;
  ~InputFile();

  int fd() const { return fd_; }
  uint64_t size() const { return size_; }  // when it was opened

  // Reads at most `buffer.size()` bytes from where the last call stopped; 0 at the end.
  absl::StatusOr<size_t> Read(std::span<std::byte> buffer);

 private:
  InputFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  absl::Status Failed(const char* what) const;

  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_PACKAGE_INPUT_FILE_H_
