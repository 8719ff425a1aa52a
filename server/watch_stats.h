// Admin's WatchStats: a stream of what the metrics have counted and the engine has in force.
//
// Between two messages a stream holds a timer of gRPC's and no thread.
//
// Thread safety: all methods may be called from any thread.
#ifndef DIMMER_SERVER_WATCH_STATS_H_
#define DIMMER_SERVER_WATCH_STATS_H_

#include <absl/status/statusor.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <mutex>
#include <set>
#include <string>

#include "dimmer/v1/admin.pb.h"
#include "engine/engine.h"
#include "server/metrics.h"

namespace dimmer {

inline constexpr size_t kMaxStatsWatchers = 64;

// InvalidArgument unless it is from 100 ms to 60 s; unset or 0 is 1 s.
absl::StatusOr<std::chrono::nanoseconds> StatsInterval(const v1::WatchStatsRequest& request);

class StatsWatchers {
 public:
  // Nothing is owned.
  StatsWatchers(const Engine* engine, const Metrics* metrics)
      : engine_(engine), metrics_(metrics) {}

  // Opens a stream, or ends it at once: with what is wrong with `bytes`, NotFound, or
  // ResourceExhausted beyond kMaxStatsWatchers.
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Watch(const grpc::ByteBuffer* bytes);

  // Ends every stream, those to come too, with Unavailable.
  void Shutdown();

 private:
  class Watcher;

  absl::Status Check(const grpc::ByteBuffer& bytes, v1::WatchStatsRequest* request,
                     std::chrono::nanoseconds* interval) const;
  // `model` "": all.
  v1::WatchStatsResponse Stats(const std::string& model) const;
  void Remove(Watcher* watcher);

  const Engine* const engine_;
  const Metrics* const metrics_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::mutex mutex_;  // before a Watcher's own
  std::set<Watcher*> watchers_;
  bool shut_down_ = false;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_WATCH_STATS_H_
