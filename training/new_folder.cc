#include "training/new_folder.h"

#include <absl/cleanup/cleanup.h>

#include <system_error>

#include "engine/util/status.h"
#include "training/package_target.h"

namespace dimmer {

absl::Status WriteNewFolder(const std::string& to,
                            const std::function<absl::Status(const std::string& folder)>& write) {
  namespace fs = std::filesystem;
  const fs::path target = PackageTarget(to);
  DIMMER_RETURN_IF_ERROR(CheckTarget(target));
  std::error_code error;
  if (fs::exists(target, error) && !fs::is_empty(target, error)) {
    return absl::FailedPreconditionError(
        fmt::format("--to: {} holds files, expected a new or empty folder", target.string()));
  }
  const fs::path fresh = PartialPath(target);
  const absl::Cleanup remove_fresh = [&] {  // nothing is left of it after success
    std::error_code ignored;
    fs::remove_all(fresh, ignored);
  };
  fs::remove_all(fresh, error);  // of a process of the same id that was killed
  fs::create_directories(fresh, error);
  if (error) {
    return absl::UnavailableError(
        fmt::format("{}: cannot be made: {}", fresh.string(), error.message()));
  }
  DIMMER_RETURN_IF_ERROR(write(fresh.string()));
  return ReplacePackage(fresh, target);
}

}  // namespace dimmer
