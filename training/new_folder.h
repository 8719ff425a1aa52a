// A folder of files that appears whole or not at all.
#ifndef DIMMER_TRAINING_NEW_FOLDER_H_
#define DIMMER_TRAINING_NEW_FOLDER_H_

#include <absl/status/status.h>

#include <filesystem>
#include <functional>
#include <string>

namespace dimmer {

// Has `write` fill a hidden folder beside `to`, and then gives that its name. FailedPrecondition:
// there is something at `to` that is not an empty folder. Nothing is left behind after an error.
absl::Status WriteNewFolder(const std::string& to,
                            const std::function<absl::Status(const std::string& folder)>& write);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_NEW_FOLDER_H_
