#include "server/watch_stats.h"

#include <google/protobuf/util/time_util.h>
#include <grpcpp/alarm.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "engine/util/status.h"
#include "server/convert.h"
#include "server/grpc_status.h"
#include "server/message_bytes.h"
#include "server/request_parser.h"

namespace dimmer {
namespace {

using std::chrono::nanoseconds;
using std::chrono::steady_clock;

constexpr nanoseconds kDefaultInterval = std::chrono::seconds(1);
constexpr nanoseconds kLeastInterval = std::chrono::milliseconds(100);
constexpr nanoseconds kMostInterval = std::chrono::seconds(60);

grpc::Status ShuttingDown() {
  return ToGrpcStatus(absl::UnavailableError("GRPC server is shutting down"));
}

void FromCounts(const ModelCounts& counts, const CostModel& cost, v1::ModelStats* out) {
  for (const auto& [code, count] : counts.requests) (*out->mutable_requests())[code] = count;
  v1::Histogram* seconds = out->mutable_request_seconds();
  seconds->mutable_upper_bounds()->Add(counts.seconds_bounds.begin(), counts.seconds_bounds.end());
  seconds->mutable_counts()->Add(counts.seconds_counts.begin(), counts.seconds_counts.end());
  seconds->set_sum(counts.seconds_sum);
  out->set_answers(counts.answers);
  out->set_texts(counts.texts);
  out->set_tokens(counts.tokens);
  out->set_flops(counts.flops);
  out->set_dense_flops(counts.dense_flops);
  out->set_tau_sum(counts.tau_sum);
  const size_t modules = std::min(counts.modules.size(), cost.moe.size());
  for (size_t i = 0; i < modules; ++i) {
    v1::ModuleStats* module = out->add_modules();
    module->set_layer(cost.moe[i].layer);
    module->set_module(std::string(ModuleName(cost.moe[i].module)));
    module->set_experts(cost.moe[i].experts);
    module->set_tokens(counts.modules[i].tokens);
    module->set_expert_runs(counts.modules[i].expert_runs);
  }
}

}  // namespace

absl::StatusOr<nanoseconds> StatsInterval(const v1::WatchStatsRequest& request) {
  const int64_t seconds = request.interval().seconds();
  const int64_t nanos = request.interval().nanos();
  if (seconds == 0 && nanos == 0) return kDefaultInterval;
  // Bounded before they are added up, which could overflow.
  const bool small = seconds >= 0 && seconds <= 60 && nanos >= 0 && nanos < 1'000'000'000;
  const nanoseconds interval =
      small ? std::chrono::seconds(seconds) + nanoseconds(nanos) : nanoseconds(0);
  if (interval < kLeastInterval || interval > kMostInterval) {
    return absl::InvalidArgumentError(fmt::format(
        "interval: found {} s and {} ns, expected a duration from 0.1 s to 60 s", seconds, nanos));
  }
  return interval;
}

// One stream. Either a write is under way or the timer runs, never both: what each of them calls
// when it is over decides what comes next.
class StatsWatchers::Watcher : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  Watcher(StatsWatchers* owner, std::string model, nanoseconds interval)
      : owner_(owner), model_(std::move(model)), interval_(interval) {}

  void Start() { Step(); }

  // Ends the stream after the write under way, or now.
  void End(grpc::Status status) {
    bool cut_short = false;
    {
      const std::lock_guard lock(mutex_);
      if (!end_.has_value()) end_ = std::move(status);
      cut_short = waiting_;
    }
    if (cut_short) alarm_.Cancel();  // its callback ends the stream
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {  // the client has gone
      Step(grpc::Status::CANCELLED);
      return;
    }
    // From the time that was due, so that slow writes do not add up; what was missed is left out.
    const auto now = steady_clock::now();
    due_ = std::max(due_ + interval_, now);
    const auto deadline =
        std::chrono::system_clock::now() +
        std::chrono::duration_cast<std::chrono::system_clock::duration>(due_ - now);
    {
      const std::lock_guard lock(mutex_);
      if (!end_.has_value()) {
        waiting_ = true;
        alarm_.Set(deadline, [this](bool /*fired*/) {
          {
            const std::lock_guard lock(mutex_);
            waiting_ = false;
          }
          Step();
        });
        return;
      }
    }
    Step();
  }

  void OnCancel() override { End(grpc::Status::CANCELLED); }

  void OnDone() override {
    owner_->Remove(this);
    delete this;
  }

 private:
  ~Watcher() override = default;

  // Writes the next message, or finishes. This may be gone when it returns.
  void Step(std::optional<grpc::Status> failed = std::nullopt) {
    {
      const std::lock_guard lock(mutex_);
      if (failed.has_value() && !end_.has_value()) end_ = failed;
      failed = end_;
    }
    if (failed.has_value()) {
      Finish(*failed);
      return;
    }
    const absl::Status written = ToBytes(owner_->Stats(model_), &buffer_);
    if (!written.ok()) {
      Finish(ToGrpcStatus(written));
      return;
    }
    StartWrite(&buffer_);
  }

  StatsWatchers* const owner_;
  const std::string model_;
  const nanoseconds interval_;
  steady_clock::time_point due_ = steady_clock::now();  // of the last message
  grpc::ByteBuffer buffer_;
  std::mutex mutex_;
  std::optional<grpc::Status> end_;
  bool waiting_ = false;  // the timer runs
  grpc::Alarm alarm_;
};

absl::Status StatsWatchers::Check(const grpc::ByteBuffer& bytes, v1::WatchStatsRequest* request,
                                  nanoseconds* interval) const {
  DIMMER_RETURN_IF_ERROR(ParseRequest(bytes, request));
  DIMMER_ASSIGN_OR_RETURN(*interval, StatsInterval(*request));
  if (request->model().empty()) return absl::OkStatus();
  for (const ModelStatus& status : engine_->Models()) {
    if (status.name == request->model()) return absl::OkStatus();
  }
  return UnknownModel(request->model());
}

v1::WatchStatsResponse StatsWatchers::Stats(const std::string& model) const {
  v1::WatchStatsResponse stats;
  *stats.mutable_time() = google::protobuf::util::TimeUtil::GetCurrentTime();
  stats.set_uptime_seconds(std::chrono::duration<double>(steady_clock::now() - start_).count());
  auto models = engine_->Models();
  std::sort(models.begin(), models.end(),
            [](const ModelStatus& a, const ModelStatus& b) { return a.name < b.name; });
  for (const ModelStatus& status : models) {
    if (!model.empty() && status.name != model) continue;
    v1::ModelStats* out = stats.add_models();
    out->set_model(status.name);
    out->set_version(status.version);
    out->set_ready(status.ready);
    if (status.served == nullptr) continue;
    const ModelInfo& info = status.served->model->info();
    if (const auto tau = engine_->GetTau(status.name); tau.ok()) {
      FromTauState(tau->state, info.cost, out->mutable_settings());
    }
    out->set_converted(info.converted);
    const Scheduler::Load load = engine_->load(status.name);
    out->set_queued(load.queued);
    out->set_running(load.running);
    FromCounts(metrics_->Counts(status.name, status.version), info.cost, out);
  }
  return stats;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* StatsWatchers::Watch(const grpc::ByteBuffer* bytes) {
  v1::WatchStatsRequest request;
  nanoseconds interval = kDefaultInterval;
  absl::Status status = Check(*bytes, &request, &interval);
  auto* watcher = new Watcher(this, request.model(), interval);
  {
    const std::lock_guard lock(mutex_);
    if (status.ok() && watchers_.size() >= kMaxStatsWatchers) {
      status = absl::ResourceExhaustedError(
          fmt::format("WatchStats: {} streams are open, at most {} may be", watchers_.size(),
                      kMaxStatsWatchers));
    }
    watchers_.insert(watcher);
    if (!status.ok()) {
      watcher->End(ToGrpcStatus(status));
    } else if (shut_down_) {
      watcher->End(ShuttingDown());
    }
  }
  watcher->Start();
  return watcher;
}

void StatsWatchers::Shutdown() {
  const std::lock_guard lock(mutex_);
  shut_down_ = true;
  for (Watcher* watcher : watchers_) watcher->End(ShuttingDown());
}

void StatsWatchers::Remove(Watcher* watcher) {
  const std::lock_guard lock(mutex_);
  watchers_.erase(watcher);
}

}  // namespace dimmer
