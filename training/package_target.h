// Where a finished package goes: what --to may be, and how it gets there in one step.
#ifndef DIMMER_TRAINING_PACKAGE_TARGET_H_
#define DIMMER_TRAINING_PACKAGE_TARGET_H_

#include <absl/status/status.h>

#include <filesystem>

namespace dimmer {

// The absolute form of --to, links resolved, without a slash at its end.
std::filesystem::path PackageTarget(const std::filesystem::path& to);

// InvalidArgument if --to is, holds or lies in the folder that `option` names.
absl::Status CheckApart(const std::filesystem::path& to, const char* option,
                        const std::filesystem::path& folder);

// A package may go to a folder that is missing, empty, or an older package: it has the file `mark`.
// FailedPrecondition: something else is there, or a file is where a folder above should be.
absl::Status CheckTarget(const std::filesystem::path& target, const char* mark = "dimmer.json");

// The folder beside `target` in which this process builds the package.
std::filesystem::path PartialPath(const std::filesystem::path& target);

// Puts the folder `fresh` in the place of `target`, which may hold an older package. Whatever
// happens in between, a kill included, one of the two is whole, and after an error the older one
// is in its place. CheckTarget() is done once more.
absl::Status ReplacePackage(const std::filesystem::path& fresh, const std::filesystem::path& target,
                            const char* mark = "dimmer.json");

}  // namespace dimmer

#endif  // DIMMER_TRAINING_PACKAGE_TARGET_H_
