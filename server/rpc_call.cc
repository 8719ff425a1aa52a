#include "server/rpc_call.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "engine/util/status.h"
#include "server/grpc_status.h"

namespace dimmer {
namespace {

constexpr size_t kMaxRequestId = 128;

}  // namespace

std::chrono::steady_clock::time_point ClientDeadline(const grpc::CallbackServerContext& context) {
  using std::chrono::steady_clock;
  using std::chrono::system_clock;
  const system_clock::time_point at = context.deadline();
  const auto left = at - system_clock::now();
  // gRPC's "never" is far away, not max(); beyond a century the clocks' sums could overflow.
  if (left > std::chrono::hours(24 * 36500)) return steady_clock::time_point::max();
  return steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(left);
}

void TicketSlot::Set(Engine::Ticket ticket) {
  const std::lock_guard lock(mutex_);
  ticket_ = std::move(ticket);
  set_ = true;
  if (cancelled_) ticket_.Cancel();
  if (resumed_) ticket_.Resume();
}

void TicketSlot::Cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (set_) ticket_.Cancel();
}

void TicketSlot::Resume() {
  const std::lock_guard lock(mutex_);
  resumed_ = true;
  if (set_) ticket_.Resume();
}

void TicketSlot::Touch() {
  const std::lock_guard lock(mutex_);
  if (set_) ticket_.Touch();
}

bool TicketSlot::cancelled() const {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

absl::Status RpcCall::StillWanted() const {
  if (ticket_->cancelled()) return RequestCancelled();
  return deadline() <= std::chrono::steady_clock::now() ? RequestTimedOut() : absl::OkStatus();
}

void RpcCall::SetModel(const std::string& model, const std::string& version) {
  model_ = model;
  version_ = version;
}

absl::Status RpcCall::SetRequestId(const std::string& id) {
  if (id.empty()) return absl::OkStatus();
  const bool printable =
      std::all_of(id.begin(), id.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (id.size() > kMaxRequestId || !printable) {
    return absl::InvalidArgumentError(
        fmt::format("request_id: found {} bytes, expected at most {} printable ASCII characters",
                    id.size(), kMaxRequestId));
  }
  request_id_ = id;
  context_->AddTrailingMetadata("request-id", id);
  return absl::OkStatus();
}

void RpcCall::Count(absl::StatusCode code) const {
  const auto duration = std::chrono::steady_clock::now() - start_;
  shared_.metrics->OnRequest(rpc_, model_, version_, code, duration);
  if (!spdlog::should_log(spdlog::level::debug)) return;
  spdlog::debug("{} {} model={} request_id={} peer={} {:.3f} ms", rpc_, CodeName(code), model_,
                request_id_, context_->peer(),
                std::chrono::duration<double, std::milli>(duration).count());
}

}  // namespace dimmer
