#include "training/package_target.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "engine/util/status.h"

namespace dimmer {
namespace {

namespace fs = std::filesystem;

bool IsOrLiesIn(const fs::path& inner, const fs::path& outer) {
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

// A hidden name beside `target` that no other process uses.
fs::path OwnName(const fs::path& target, const char* purpose) {
  return target.parent_path() /
         fmt::format(".{}.{}.{}", target.filename().string(), purpose, getpid());
}

absl::Status NotPlaced(const fs::path& target, const std::string& reason) {
  return absl::UnavailableError(
      fmt::format("{}: cannot put the package there: {}", target.string(), reason));
}

// For file systems that cannot exchange two names: a kill between the two steps leaves the older
// package under a hidden name.
absl::Status MoveAsideAndReplace(const fs::path& fresh, const fs::path& target) {
  const fs::path old = OwnName(target, "old");
  std::error_code error;
  fs::rename(target, old, error);
  if (error) return NotPlaced(target, error.message());
  fs::rename(fresh, target, error);
  if (error) {
    std::error_code ignored;
    fs::rename(old, target, ignored);
    return NotPlaced(target, error.message());
  }
  fs::remove_all(old, error);
  return absl::OkStatus();
}

}  // namespace

fs::path PackageTarget(const fs::path& to) {
  std::error_code error;
  const fs::path absolute = fs::absolute(to, error);
  fs::path target = fs::weakly_canonical(absolute, error);
  if (error) target = absolute.lexically_normal();
  return target.has_filename() ? target : target.parent_path();
}

absl::Status CheckApart(const fs::path& to, const char* option, const fs::path& folder) {
  const fs::path target = PackageTarget(to);
  const fs::path other = PackageTarget(folder);
  if (!IsOrLiesIn(target, other) && !IsOrLiesIn(other, target)) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "--to: found {}, expected a folder apart from {} {}: neither may be or hold the other",
      to.string(), option, folder.string()));
}

absl::Status CheckTarget(const fs::path& target, const char* mark) {
  std::error_code error;
  for (fs::path folder = target; folder.has_relative_path(); folder = folder.parent_path()) {
    if (!fs::exists(folder, error)) continue;
    if (fs::is_directory(folder, error)) break;
    return absl::FailedPreconditionError(fmt::format("--to: {} is not a folder", folder.string()));
  }
  if (!fs::exists(target, error) || fs::is_empty(target, error) ||
      fs::exists(target / mark, error)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(fmt::format(
      "--to: {} holds files and no {}, expected a new or empty folder, or an older package to "
      "replace",
      target.string(), mark));
}

fs::path PartialPath(const fs::path& target) { return OwnName(target, "partial"); }

absl::Status ReplacePackage(const fs::path& fresh, const fs::path& target, const char* mark) {
  DIMMER_RETURN_IF_ERROR(CheckTarget(target, mark));
  std::error_code error;
  if (!fs::exists(target, error) || fs::is_empty(target, error)) {
    fs::rename(fresh, target, error);  // also in the place of an empty folder
    return error ? NotPlaced(target, error.message()) : absl::OkStatus();
  }
  if (renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) {
    fs::remove_all(fresh, error);  // the older package by now
    return absl::OkStatus();
  }
  if (errno == EINVAL || errno == ENOSYS) return MoveAsideAndReplace(fresh, target);
  return NotPlaced(target, std::generic_category().message(errno));
}

}  // namespace dimmer
