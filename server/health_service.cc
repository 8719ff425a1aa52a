#include "server/health_service.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "engine/util/status.h"
#include "server/grpc_status.h"

namespace dimmer {
namespace {

using grpc::health::v1::HealthCheckRequest;
using ServingStatus = health::Response::ServingStatus;

constexpr std::array<std::string_view, 3> kServices = {
    "dimmer.v1.Inference", "inference.GRPCInferenceService", "grpc.health.v1.Health"};

}  // namespace

// One open Watch. gRPC takes one write at a time: what changes meanwhile is sent after it, and of
// several changes only the last.
class HealthService::Watcher : public grpc::ServerWriteReactor<health::Response> {
 public:
  Watcher(HealthService* owner, std::string service)
      : owner_(owner), service_(std::move(service)) {}

  const std::string& service() const { return service_; }

  void Update(ServingStatus status) {
    std::unique_lock lock(mutex_);
    wanted_ = status;
    Advance(lock);
  }

  // Ends the watch once what is wanted has been sent.
  void End(grpc::Status status) {
    std::unique_lock lock(mutex_);
    if (!end_.has_value()) end_ = std::move(status);
    Advance(lock);
  }

  void OnWriteDone(bool ok) override {
    std::unique_lock lock(mutex_);
    writing_ = false;
    if (!ok) {  // the client has gone: nothing more to send
      sent_ = wanted_;
      if (!end_.has_value()) end_ = grpc::Status::CANCELLED;
    }
    Advance(lock);
  }

  void OnCancel() override {
    std::unique_lock lock(mutex_);
    sent_ = wanted_;
    if (!end_.has_value()) end_ = grpc::Status::CANCELLED;
    Advance(lock);
  }

  void OnDone() override {
    owner_->Remove(this);
    delete this;
  }

 private:
  ~Watcher() override = default;

  // Starts the next operation, if none runs. Unlocks before it calls gRPC.
  void Advance(std::unique_lock<std::mutex>& lock) {
    if (writing_ || finished_) return;
    if (sent_ != wanted_) {
      writing_ = true;
      sent_ = wanted_;
      response_.set_status(*wanted_);
      lock.unlock();
      StartWrite(&response_);
    } else if (end_.has_value()) {
      finished_ = true;
      const grpc::Status status = *end_;
      lock.unlock();
      Finish(status);
    }
  }

  HealthService* const owner_;
  const std::string service_;
  std::mutex mutex_;
  health::Response response_;
  std::optional<ServingStatus> wanted_, sent_;
  std::optional<grpc::Status> end_;
  bool writing_ = false;
  bool finished_ = false;
};

std::optional<ServingStatus> HealthService::StatusOf(const std::string& service) const {
  const Readiness& readiness = *shared_.readiness;
  const auto status = [](bool ready) {
    return ready ? health::Response::SERVING : health::Response::NOT_SERVING;
  };
  if (service.empty() ||
      std::find(kServices.begin(), kServices.end(), service) != kServices.end()) {
    return status(readiness.ServerReady());
  }
  if (readiness.KnowsModel(service)) return status(readiness.ModelReady(service, ""));
  return std::nullopt;
}

void HealthService::Refresh() {
  const std::lock_guard lock(mutex_);
  for (Watcher* watcher : watchers_) {
    watcher->Update(StatusOf(watcher->service()).value_or(health::Response::SERVICE_UNKNOWN));
  }
}

void HealthService::Shutdown() {
  Refresh();
  const std::lock_guard lock(mutex_);
  shut_down_ = true;
  for (Watcher* watcher : watchers_) {
    watcher->End(ToGrpcStatus(absl::UnavailableError("GRPC server is shutting down")));
  }
}

void HealthService::Remove(Watcher* watcher) {
  const std::lock_guard lock(mutex_);
  watchers_.erase(watcher);
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context,
                                               const grpc::ByteBuffer* bytes,
                                               grpc::ByteBuffer* response) {
  return Serve<HealthCheckRequest>(
      shared_, "Check", context, bytes, response,
      [this](UnaryCall* call, const HealthCheckRequest& request) {
        const auto status = StatusOf(request.service());
        if (!status.has_value()) {
          call->Fail(absl::NotFoundError(
              fmt::format("service: found \"{}\", expected \"\", a model's name or that of a gRPC "
                          "service",
                          request.service())));
          return;
        }
        health::Response answer;
        answer.set_status(*status);
        call->Reply(answer);
      },
      Admission::kAlways);
}

grpc::ServerWriteReactor<health::Response>* HealthService::Watch(
    grpc::CallbackServerContext* /*context*/, const HealthCheckRequest* request) {
  auto* watcher = new Watcher(this, request->service());
  const std::lock_guard lock(mutex_);
  watchers_.insert(watcher);
  watcher->Update(StatusOf(watcher->service()).value_or(health::Response::SERVICE_UNKNOWN));
  if (shut_down_) {
    watcher->End(ToGrpcStatus(absl::UnavailableError("GRPC server is shutting down")));
  }
  return watcher;
}

}  // namespace dimmer
