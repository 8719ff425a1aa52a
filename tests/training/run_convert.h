// Runs dimmer-convert as a user does, for the tests of its commands.
#ifndef DIMMER_TESTS_TRAINING_RUN_CONVERT_H_
#define DIMMER_TESTS_TRAINING_RUN_CONVERT_H_

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "tests/models/test_packages.h"

namespace dimmer {

struct Outcome {
  int status = -1;  // exit code, or -1 if a signal ended it
  std::string out, err;
};

struct RunOptions {
  std::string kill_at;                    // SIGKILL once standard error has this text
  std::optional<rlim_t> file_size_limit;  // bytes: a disk that is full for larger files
};

inline std::string ReadAll(int fd, const std::string& stop_at, pid_t pid) {
  std::string text;
  char buffer[4096];
  bool killed = false;
  for (ssize_t n = 0; (n = read(fd, buffer, sizeof(buffer))) > 0;) {
    text.append(buffer, n);
    if (!killed && !stop_at.empty() && text.find(stop_at) != std::string::npos) {
      kill(pid, SIGKILL);
      killed = true;
    }
  }
  close(fd);
  return text;
}

// Runs dimmer-convert. Standard output goes through a file, so that one pipe is left to wait on.
inline Outcome Convert(const std::vector<std::string>& arguments, const RunOptions& options = {}) {
  const TempDirectory directory;
  const std::string out_path = directory.Sub("out");
  std::vector<char*> argv = {const_cast<char*>(DIMMER_CONVERT)};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  int error_pipe[2];
  if (pipe(error_pipe) != 0) return {};
  const pid_t pid = fork();
  if (pid == 0) {
    const int out = open(out_path.c_str(), O_WRONLY | O_CREAT, 0600);
    dup2(out, STDOUT_FILENO);
    dup2(error_pipe[1], STDERR_FILENO);
    close(error_pipe[0]);
    close(error_pipe[1]);
    if (options.file_size_limit.has_value()) {
      signal(SIGXFSZ, SIG_IGN);  // so that write() fails instead
      const rlimit limit{*options.file_size_limit, *options.file_size_limit};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    execv(DIMMER_CONVERT, argv.data());
    _exit(127);
  }
  close(error_pipe[1]);
  Outcome outcome;
  outcome.err = ReadAll(error_pipe[0], options.kill_at, pid);
  int status = 0;
  waitpid(pid, &status, 0);
  if (WIFEXITED(status)) outcome.status = WEXITSTATUS(status);
  outcome.out = ReadTextFile(out_path).value_or("");
  return outcome;
}

// Checksums of all files under a directory, by name.
inline std::map<std::string, std::string> Checksums(const std::string& directory) {
  std::map<std::string, std::string> sums;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = std::filesystem::relative(entry.path(), directory).string();
    sums[name] = FileChecksum(entry.path().string()).value_or("unreadable");
  }
  return sums;
}

}  // namespace dimmer

#endif  // DIMMER_TESTS_TRAINING_RUN_CONVERT_H_
