// Helpers around absl::Status. Messages are built with fmt, because Debian's absl::StrCat does not
// take std::string_view: absl::InvalidArgumentError(fmt::format("...")).
#ifndef DIMMER_ENGINE_UTIL_STATUS_H_
#define DIMMER_ENGINE_UTIL_STATUS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#define DIMMER_CONCAT_INNER_(a, b) a##b
#define DIMMER_CONCAT_(a, b) DIMMER_CONCAT_INNER_(a, b)

// Returns from the enclosing function if `expr` (an absl::Status) is not OK.
#define DIMMER_RETURN_IF_ERROR(expr)                                  \
  do {                                                                \
    if (absl::Status status_ = (expr); !status_.ok()) return status_; \
  } while (false)

// DIMMER_ASSIGN_OR_RETURN(auto x, F()): declares or assigns `x` from a StatusOr, or returns its
// error.
#define DIMMER_ASSIGN_OR_RETURN(lhs, expr) \
  DIMMER_ASSIGN_OR_RETURN_IMPL_(DIMMER_CONCAT_(status_or_, __LINE__), lhs, expr)
// NOLINTBEGIN(bugprone-macro-parentheses): a declaration can't stand in parentheses
#define DIMMER_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                  \
  if (!tmp.ok()) return tmp.status();                 \
  lhs = std::move(tmp).value()
// NOLINTEND(bugprone-macro-parentheses)

namespace dimmer {

inline std::string_view Message(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

// The same code with "`where`: " before the message.
inline absl::Status Annotate(const absl::Status& status, std::string_view where) {
  if (status.ok()) return status;
  return absl::Status(status.code(), fmt::format("{}: {}", where, Message(status)));
}

// What every part says where it ends a request.
inline absl::Status RequestCancelled() { return absl::CancelledError("Request was cancelled"); }
inline absl::Status RequestTimedOut() {
  return absl::DeadlineExceededError("Request timeout expired");
}
// As Triton has it. `version` "" is any. What was asked for is cut where it is too long to repeat.
inline absl::Status UnknownModel(std::string_view model, std::string_view version = "") {
  return absl::NotFoundError(
      fmt::format("Request for unknown model: '{:.200}'{} is not found", model,
                  version.empty() ? "" : fmt::format(" version '{:.200}'", version)));
}

}  // namespace dimmer

#endif  // DIMMER_ENGINE_UTIL_STATUS_H_
