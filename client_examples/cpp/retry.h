// Tries a call again while the server is full: RESOURCE_EXHAUSTED, usually with a
// google.rpc.RetryInfo. One header, to copy.
//
// Thread safety: functions without state of their own; a Backoff is a value.
#ifndef DIMMER_EXAMPLE_RETRY_H_
#define DIMMER_EXAMPLE_RETRY_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace dimmer_example {

using Seconds = std::chrono::duration<double>;

// When to try again, and how often.
struct Backoff {
  Seconds initial{0.1};
  double multiplier = 2;
  Seconds maximum{5};
  int max_attempts = 8;

  // The wait after so many failures, at least 1: never less than what the server asked for. The
  // part on top grows and is random, so that clients that were refused together do not come back
  // together. `jitter` is a random number in [0, 1).
  Seconds Delay(int failures, std::optional<Seconds> asked, double jitter) const {
    const Seconds ceiling = std::min(maximum, initial * std::pow(multiplier, failures - 1));
    return asked.value_or(Seconds(0)) + jitter * ceiling;
  }
};

// What the server asks for in the status details; nullopt where it does not.
inline std::optional<Seconds> RetryDelay(const grpc::Status& status) {
  google::rpc::Status details;  // the trailing metadata grpc-status-details-bin
  if (!details.ParseFromString(status.error_details())) return std::nullopt;
  for (const google::protobuf::Any& detail : details.details()) {
    google::rpc::RetryInfo info;
    if (!detail.UnpackTo(&info)) continue;
    const auto& delay = info.retry_delay();
    return std::max(Seconds(0), Seconds(double(delay.seconds()) + delay.nanos() * 1e-9));
  }
  return std::nullopt;
}

// Hears of each wait, and what the server had asked for.
using OnRetry = std::function<void(Seconds delay, std::optional<Seconds> asked)>;

// `call(context)` until it answers; `timeout` bounds all attempts and waits together. Every attempt
// gets a context of its own, with the same deadline. Returns the last attempt's status; where
// attempts or time ran out that is RESOURCE_EXHAUSTED, and the message says which.
inline grpc::Status CallWithRetry(const std::function<grpc::Status(grpc::ClientContext&)>& call,
                                  Seconds timeout, const Backoff& backoff = {},
                                  const OnRetry& on_retry = nullptr) {
  using Clock = std::chrono::system_clock;  // what gRPC's deadlines are in
  const Clock::time_point deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(timeout);
  thread_local std::minstd_rand random(std::random_device{}());
  for (int attempt = 1;; ++attempt) {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    grpc::Status status = call(context);
    if (status.error_code() != grpc::StatusCode::RESOURCE_EXHAUSTED) return status;
    const auto give_up = [&](const std::string& why) {
      return grpc::Status(status.error_code(),
                          "gave up after attempt " + std::to_string(attempt) + ", " + why + ": " +
                              status.error_message(),
                          status.error_details());
    };
    if (attempt >= backoff.max_attempts) return give_up("no attempts left");
    const std::optional<Seconds> asked = RetryDelay(status);
    const double jitter = std::uniform_real_distribution<>(0, 1)(random);
    const Seconds delay = backoff.Delay(attempt, asked, jitter);
    if (Clock::now() + delay >= deadline) return give_up("the deadline comes before the next");
    if (on_retry) on_retry(delay, asked);
    std::this_thread::sleep_for(delay);
  }
}

}  // namespace dimmer_example

#endif  // DIMMER_EXAMPLE_RETRY_H_
