// Makes many calls at once and backs off while the server is full, until every call is answered.
// Exit status: 0 if all were answered; 1 if not; 2 where it was called wrongly.
#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "dimmer/v1/inference.grpc.pb.h"
#include "retry.h"

namespace {

using dimmer_example::Backoff;
using dimmer_example::Seconds;

struct Options {
  std::string target = "127.0.0.1:8001";
  std::string model = "emotion";
  std::string text = "i feel so happy and loved today";
  int texts = 1;
  int calls = 64;
  int parallel = 16;
  int attempts = 8;
  double timeout = 30;
};

// What became of the calls. Safe to use from any thread.
class Tally {
 public:
  void AddWait(Seconds delay, std::optional<Seconds> asked) {
    const std::scoped_lock lock(mutex_);
    waits_.push_back(delay.count());
    if (asked) ++asked_;
  }

  void AddEnd(bool answered, const std::string& end) {
    const std::scoped_lock lock(mutex_);
    if (answered) ++answered_;
    ++ends_[end];
  }

  // True if every call was answered.
  bool Print(int calls) {
    const std::scoped_lock lock(mutex_);
    fmt::print("calls: {}, answered: {}, failed: {}\n", calls, answered_, calls - answered_);
    fmt::print("retries: {}, with RetryInfo: {}\n", waits_.size(), asked_);
    if (!waits_.empty()) {
      const auto [least, most] = std::minmax_element(waits_.begin(), waits_.end());
      fmt::print("waits: {:.3f} to {:.3f} s\n", *least, *most);
    }
    for (const auto& [end, count] : ends_) fmt::print("  {} {}\n", count, end);
    return answered_ == calls;
  }

 private:
  std::mutex mutex_;
  std::vector<double> waits_;
  std::map<std::string, int> ends_;
  int answered_ = 0;
  int asked_ = 0;
};

void OneCall(dimmer::v1::Inference::Stub& stub, const Options& options, Tally& tally) {
  dimmer::v1::ClassifyRequest request;
  request.set_model(options.model);
  for (int i = 0; i < options.texts; ++i) request.add_texts(options.text);
  dimmer::v1::ClassifyResponse answer;
  const grpc::Status status = dimmer_example::CallWithRetry(
      [&](grpc::ClientContext& context) { return stub.Classify(&context, request, &answer); },
      Seconds(options.timeout), Backoff{.max_attempts = options.attempts},
      [&](Seconds delay, std::optional<Seconds> asked) { tally.AddWait(delay, asked); });
  if (status.ok()) {
    tally.AddEnd(true, "answered " + answer.results(0).labels(0).name());
  } else {
    tally.AddEnd(false, fmt::format("error {}: {}", static_cast<int>(status.error_code()),
                                    status.error_message()));
  }
}

int Run(const Options& options) {
  const auto channel = grpc::CreateChannel(options.target, grpc::InsecureChannelCredentials());
  const auto stub = dimmer::v1::Inference::NewStub(channel);
  Tally tally;
  std::atomic<int> next = 0;
  std::vector<std::jthread> threads;
  threads.reserve(static_cast<size_t>(options.parallel));
  for (int i = 0; i < options.parallel; ++i) {
    threads.emplace_back([&] {
      while (next++ < options.calls) OneCall(*stub, options, tally);
    });
  }
  threads.clear();  // joins
  return tally.Print(options.calls) ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Makes many calls at once and backs off while the server is full."};
  app.add_option("--target", options.target, "gRPC port, HOST:PORT")->capture_default_str();
  app.add_option("--model", options.model, "A classifier")->capture_default_str();
  app.add_option("--text", options.text, "What every call asks")->capture_default_str();
  app.add_option("--texts", options.texts, "In each call")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000));
  app.add_option("--calls", options.calls, "Calls in all")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--parallel", options.parallel, "Calls at a time")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--attempts", options.attempts, "For one call")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--timeout", options.timeout, "Seconds for one call, waits too")
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return Run(options);
}
