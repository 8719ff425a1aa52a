// dimmer-demo: sends texts to a running dimmer-server at several budgets and shows what each answer
// cost. Waits until the server is healthy. For code to copy from, see client_examples/cpp.
// Exit status: 0; 1 where a call failed; 2 where it was called wrongly.
#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "client_examples/demo/demo_table.h"
#include "dimmer/v1/inference.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace dimmer::demo {
namespace {

struct Options {
  std::string target = "127.0.0.1:8001";
  std::string model = "emotion";
  std::vector<std::string> texts;
  std::vector<double> taus, fractions;
  std::vector<uint64_t> max_flops;
  uint32_t wait_secs = 30;
  bool json = false;
};

constexpr int kCalls = 3;

const char* const kTexts[] = {
    "i feel proud of how far our little team has come this year",
    "i feel so lonely in this house since she moved away",
    "i feel furious that they cancelled our train for the third time",
    "i feel terrified of what the doctor is going to say tomorrow",
    "i feel amazed that all of you came out in this weather",
    "i feel so tender and devoted when he falls asleep holding my hand",
};

// What the flags ask for, or else a walk from the model's default down to its floor.
std::vector<Setting> Settings(const Options& options) {
  std::vector<Setting> settings;
  const auto add = [&](std::string name) -> v1::Budget& {
    return settings.emplace_back(Setting{std::move(name), {}}).budget;
  };
  for (double tau : options.taus) add(fmt::format("tau {}", tau)).set_tau(tau);
  for (double fraction : options.fractions) {
    add(fmt::format("flop_fraction {}", fraction)).set_flop_fraction(fraction);
  }
  for (uint64_t flops : options.max_flops) {
    add(fmt::format("max_flops {}", flops)).set_max_flops(flops);
  }
  if (!settings.empty()) return settings;
  add("model's default");
  add("tau 0 (dense)").set_tau(0);
  add("flop_fraction 0.7").set_flop_fraction(0.7);
  add("flop_fraction 0.5").set_flop_fraction(0.5);
  add("tau 1 (floor)").set_tau(1);
  return settings;
}

// Waits on the health service, which says so the moment it changes.
bool WaitUntilServing(const std::shared_ptr<grpc::Channel>& channel, const Options& options) {
  using Health = grpc::health::v1::Health;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(options.wait_secs));
  context.set_wait_for_ready(true);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(options.model);
  const auto stub = Health::NewStub(channel);
  const auto reader = stub->Watch(&context, request);
  grpc::health::v1::HealthCheckResponse response;
  while (reader->Read(&response)) {
    if (response.status() == grpc::health::v1::HealthCheckResponse::SERVING) {
      context.TryCancel();
      return true;
    }
    if (response.status() == grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN) break;
  }
  context.TryCancel();
  return false;
}

grpc::Status Classify(v1::Inference::Stub& stub, const Options& options, const std::string& text,
                      const v1::Budget& budget, v1::ClassifyResponse* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  v1::ClassifyRequest request;
  request.set_model(options.model);
  request.add_texts(text);
  *request.mutable_budget() = budget;
  return stub.Classify(&context, request, response);
}

// The fastest of a few calls, since the machine may do other things too. The answer is the same.
grpc::Status ClassifyBest(v1::Inference::Stub& stub, const Options& options,
                          const std::string& text, const v1::Budget& budget,
                          v1::ClassifyResponse* best) {
  grpc::Status status = Classify(stub, options, text, budget, best);
  for (int again = 1; again < kCalls && status.ok(); ++again) {
    v1::ClassifyResponse response;
    status = Classify(stub, options, text, budget, &response);
    if (response.usage().compute_us() < best->usage().compute_us()) best->Swap(&response);
  }
  return status;
}

int Fail(const std::string& message) {
  fmt::print(stderr, "dimmer-demo: {}\n", message);
  return 1;
}

int Run(const Options& options) {
  const auto channel = grpc::CreateChannel(options.target, grpc::InsecureChannelCredentials());
  if (!WaitUntilServing(channel, options)) {
    return Fail(fmt::format("{} does not serve a model {} (waited up to {} s)", options.target,
                            options.model, options.wait_secs));
  }
  const auto stub = v1::Inference::NewStub(channel);
  const std::vector<Setting> settings = Settings(options);
  std::vector<Answer> answers;
  for (const std::string& text : options.texts) {
    for (const Setting& setting : settings) {
      v1::ClassifyResponse response;
      const grpc::Status status = ClassifyBest(*stub, options, text, setting.budget, &response);
      if (!status.ok()) {
        return Fail(fmt::format("{}, {}: error {}: {}", text, setting.name,
                                static_cast<int>(status.error_code()), status.error_message()));
      }
      if (response.results_size() != 1 || response.results(0).labels_size() == 0) {
        return Fail("the server answered without a label");
      }
      answers.push_back({text, setting.name, response.results(0)});
    }
  }
  fmt::print("{}",
             options.json ? Json(answers) : Table(answers, settings, isatty(STDOUT_FILENO) == 1));
  return 0;
}

}  // namespace
}  // namespace dimmer::demo

int main(int argc, char** argv) {
  using dimmer::demo::kTexts;
  dimmer::demo::Options options;
  CLI::App app{"Classifies texts at several budgets and shows what each answer cost.",
               "dimmer-demo"};
  app.set_version_flag("--version", std::string("dimmer-demo ") + DIMMER_VERSION);
  app.add_option("--target,--address", options.target, "The server's gRPC port, HOST:PORT")
      ->capture_default_str();
  app.add_option("--model", options.model, "A classifier")->capture_default_str();
  app.add_option("--text", options.texts, "A text of your own. May be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--tau", options.taus, "Budgets to try, instead of a walk through five");
  app.add_option("--flop-fraction", options.fractions, "Budgets to try");
  app.add_option("--max-flops", options.max_flops, "Budgets to try");
  app.add_option("--wait-secs", options.wait_secs, "How long to wait for the server")
      ->capture_default_str();
  app.add_flag("--json", options.json, "Print JSON instead of a table");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (options.texts.empty()) options.texts.assign(std::begin(kTexts), std::end(kTexts));
  return dimmer::demo::Run(options);
}
