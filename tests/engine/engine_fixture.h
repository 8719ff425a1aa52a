// An engine over small random packages, whose one worker a test can hold.
#ifndef DIMMER_TESTS_ENGINE_ENGINE_FIXTURE_H_
#define DIMMER_TESTS_ENGINE_ENGINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "tests/models/test_packages.h"
#include "tests/scheduler/fake_model.h"

namespace dimmer {

// Holds the worker that reports a step, after the computation and before the answer.
class HoldingObserver : public SchedulerObserver {
 public:
  void OnStep(const std::string&, const std::string&, const StepStats&,
              std::chrono::nanoseconds) override {
    turnstile.Pass();
  }
  Turnstile turnstile;
};

// A submitted request and its answer.
struct Pending {
  Engine::Ticket ticket;
  std::shared_ptr<std::promise<Response>> promise = std::make_shared<std::promise<Response>>();
  std::future<Response> response = promise->get_future();

  Response Await() { return response.get(); }
};

// A second answer makes set_value throw, which ends the test program.
inline Pending Submit(Engine& engine, Request request) {
  Pending pending;
  pending.ticket = engine.Submit(
      std::move(request),
      [promise = pending.promise](Response response) { promise->set_value(std::move(response)); });
  return pending;
}

class EngineTest : public testing::Test {
 protected:
  static TestBert Converted() {
    TestBert bert;
    bert.vocabulary = true;
    bert.experts = 8;
    bert.intermediate_size = 96;
    bert.router_width = 3;
    return bert;
  }

  // `held`: the worker stops at the end of its first step until the observer's turnstile opens.
  void Start(EngineOptions options = {.threads = 2, .workers = 1}, bool held = false) {
    if (!held) observer_.turnstile.Open();
    auto engine = Engine::Create(std::move(options), &observer_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  void TearDown() override { observer_.turnstile.Open(); }

  RepositoryEntry Write(const TestBert& bert, const std::string& model,
                        const std::string& version = "1") {
    RepositoryEntry entry{.model = model,
                          .version = version,
                          .directory = temp_.Sub(model + "/" + version),
                          .serving = {},
                          .status = {}};
    WriteTestBert(bert, entry.directory);
    return entry;
  }
  void Load(const TestBert& bert, const std::string& model, const std::string& version = "1") {
    const absl::Status status = engine_->Load(Write(bert, model, version));
    ASSERT_TRUE(status.ok()) << status;
  }
  absl::StatusOr<std::vector<Engine::Tokens>> Tokenize(const std::string& model,
                                                       const std::vector<std::string>& texts,
                                                       bool add_special_tokens) {
    return engine_->Tokenize(model, texts, add_special_tokens, [] { return absl::OkStatus(); });
  }
  Response Ask(Request request) { return Submit(*engine_, std::move(request)).Await(); }

  TempDirectory temp_;
  HoldingObserver observer_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace dimmer

#endif  // DIMMER_TESTS_ENGINE_ENGINE_FIXTURE_H_
