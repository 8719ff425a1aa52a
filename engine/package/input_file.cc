#include "engine/package/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/util/status.h"

namespace dimmer {

absl::Status InputFile::Failed(const char* what) const {
  const int error = errno;
  const std::string message = fmt::format("{}: {}: {}", path_, what, std::strerror(error));
  // A path that leads through a file is as absent as one that leads nowhere.
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(message);
  return absl::InvalidArgumentError(message);
}

absl::StatusOr<InputFile> InputFile::Open(const std::string& path) {
  int fd = -1;
  do {  // without O_NONBLOCK a named pipe would be waited for, not refused
    fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (fd < 0 && errno == EINTR);
  InputFile file(path, fd);
  if (fd < 0) return file.Failed("can't be opened");
  struct stat info {};
  if (fstat(fd, &info) != 0) return file.Failed("can't be examined");
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {}, expected a regular file", path,
                    S_ISDIR(info.st_mode) ? "a directory" : "a special file"));
  }
  file.size_ = static_cast<uint64_t>(info.st_size);
  return file;
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

InputFile::~InputFile() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<size_t> InputFile::Read(std::span<std::byte> buffer) {
  ssize_t count = 0;
  do {
    count = read(fd_, buffer.data(), buffer.size());
  } while (count < 0 && errno == EINTR);
  if (count < 0) return Failed("can't be read");
  return static_cast<size_t>(count);
}

}  // namespace dimmer
