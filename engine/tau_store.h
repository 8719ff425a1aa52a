// What SetTau asked for, per model, and the state file that keeps it over a restart.
//
// Only what was set is kept: everything else still follows the package and config.yaml.
#ifndef DIMMER_ENGINE_TAU_STORE_H_
#define DIMMER_ENGINE_TAU_STORE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "engine/budget/usage.h"

namespace dimmer {

// Fields that SetTau has set; the others are unset.
struct TauOverrides {
  std::optional<double> default_tau, min_tau, max_tau;
  std::map<std::pair<uint32_t, Module>, double> layers;

  bool empty() const { return !default_tau && !min_tau && !max_tau && layers.empty(); }
  bool operator==(const TauOverrides&) const = default;
};

// One model's. From `expires` on the temporary ones are void, and the revision is one higher: that
// is computed where it is read, so a reader never writes.
struct TauRecord {
  TauOverrides permanent;
  TauOverrides temporary;                                        // on top of the permanent ones
  std::optional<std::chrono::system_clock::time_point> expires;  // set iff `temporary` is not empty
  uint64_t revision = 1;
  bool operator==(const TauRecord&) const = default;
};

using TauRecords = std::map<std::string, TauRecord, std::less<>>;  // by model

// "tau.json" of a state directory. Stateless, so thread-safe; writers must take turns.
class TauStore {
 public:
  // "" keeps nothing: Read() finds no records, Write() does nothing.
  explicit TauStore(const std::string& directory);

  // A missing file has no records. One whose text is not understood is renamed to
  // "tau.json.corrupt", or ".corrupt.1" and so on (and the log says why): a server starts without
  // it. An error where the file may well be sound, so that to go on would drop what the operator
  // has set: it can't be read or set aside, or (FailedPrecondition) its format is a newer one.
  absl::StatusOr<TauRecords> Read() const;
  // Atomic: on an error (Internal) the old file stands.
  absl::Status Write(const TauRecords& records) const;

 private:
  absl::Status SetAside(const absl::Status& why) const;

  std::string path_;
};

std::string TauRecordsToJson(const TauRecords& records);
// InvalidArgument names `where` and the key; FailedPrecondition: a newer format.
absl::StatusOr<TauRecords> TauRecordsFromJson(std::string_view text, const std::string& where);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TAU_STORE_H_
