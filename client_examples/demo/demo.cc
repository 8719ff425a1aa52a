// dimmer-demo: asks a running dimmer-server what it serves, and shows what each model does at
// several budgets: a table for a classifier, texts as they come for a language model. Waits until
// the server is healthy. For code to copy from, see client_examples/cpp. Exit status: 0; 1 where a
// call failed; 2 where it was called wrongly.
#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "client_examples/demo/demo_classify.h"
#include "client_examples/demo/demo_options.h"
#include "client_examples/demo/demo_story.h"
#include "dimmer/v1/admin.grpc.pb.h"
#include "dimmer/v1/inference.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace dimmer::demo {
namespace {

// Waits on the health service, which says so the moment it changes.
bool WaitUntilServing(const std::shared_ptr<grpc::Channel>& channel, const Options& options) {
  using Health = grpc::health::v1::Health;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(options.wait_secs));
  context.set_wait_for_ready(true);
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(options.model);  // "": the server
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

int Fail(const std::string& message) {
  fmt::print(stderr, "dimmer-demo: {}\n", message);
  return 1;
}

bool Does(const v1::Model& model, const char* task) {
  return std::find(model.tasks().begin(), model.tasks().end(), task) != model.tasks().end();
}

int Run(const Options& options) {
  const auto channel = grpc::CreateChannel(options.target, grpc::InsecureChannelCredentials());
  if (!WaitUntilServing(channel, options)) {
    return Fail(fmt::format("{} does not serve {} (waited up to {} s)", options.target,
                            options.model.empty() ? "anything" : "a model " + options.model,
                            options.wait_secs));
  }
  const auto admin =
      v1::Admin::NewStub(grpc::CreateChannel(options.admin, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  v1::ListModelsResponse list;
  const grpc::Status status = admin->ListModels(&context, {}, &list);
  if (!status.ok()) {
    return Fail(fmt::format("{} (admin port): error {}: {}", options.admin,
                            static_cast<int>(status.error_code()), status.error_message()));
  }
  const auto stub = v1::Inference::NewStub(channel);
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  size_t shown = 0;
  for (const v1::Model& model : list.models()) {
    const bool wanted = options.model.empty() || options.model == model.name();
    const bool classifies = Does(model, "classification");
    if (!wanted || !model.ready() || !(classifies || Does(model, "generation"))) continue;
    const auto show = classifies ? ShowClassifier : ShowGenerator;
    const std::string wrong = show(*stub, model.name(), options, rows);
    if (!wrong.empty()) return Fail(wrong);
    ++shown;
  }
  if (shown == 0) {
    return Fail(fmt::format("{}: found no model that classifies or generates, expected {}",
                            options.admin, options.model.empty() ? "one" : options.model));
  }
  if (options.json) {
    using Json = nlohmann::ordered_json;
    fmt::print("{}\n", rows.dump(2, ' ', false, Json::error_handler_t::replace));
  }
  return 0;
}

struct Budgets {
  std::vector<double> taus, fractions;
  std::vector<uint64_t> max_flops;
};

std::vector<Setting> Settings(const Budgets& budgets) {
  std::vector<Setting> settings;
  const auto add = [&](std::string name) -> v1::Budget& {
    return settings.emplace_back(Setting{std::move(name), {}}).budget;
  };
  for (double tau : budgets.taus) add(fmt::format("tau {}", tau)).set_tau(tau);
  for (double fraction : budgets.fractions) {
    add(fmt::format("flop_fraction {}", fraction)).set_flop_fraction(fraction);
  }
  for (uint64_t flops : budgets.max_flops) {
    add(fmt::format("max_flops {}", flops)).set_max_flops(flops);
  }
  return settings;
}

}  // namespace
}  // namespace dimmer::demo

int main(int argc, char** argv) {
  dimmer::demo::Options options;
  dimmer::demo::Budgets budgets;
  CLI::App app{"Shows what a server's models do at several budgets, and what each answer cost.",
               "dimmer-demo"};
  app.set_version_flag("--version", std::string("dimmer-demo ") + DIMMER_VERSION);
  app.add_option("--target,--address", options.target, "The server's gRPC port, HOST:PORT")
      ->capture_default_str();
  app.add_option("--admin-address", options.admin, "Its admin port, HOST:PORT")
      ->capture_default_str();
  app.add_option("--model", options.model, "Only this model");
  app.add_option("--text", options.texts, "A text or prompt of your own. May be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--tau", budgets.taus, "Budgets to try, instead of the demonstration's own");
  app.add_option("--flop-fraction", budgets.fractions, "Budgets to try");
  app.add_option("--max-flops", budgets.max_flops, "Budgets to try");
  app.add_option("--max-tokens", options.max_tokens, "Of a generated text; 0: the model's default")
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of a generated text; 0: a fresh one")
      ->capture_default_str();
  app.add_option("--wait-secs", options.wait_secs, "How long to wait for the server")
      ->capture_default_str();
  app.add_flag("--json", options.json, "Print JSON");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.settings = dimmer::demo::Settings(budgets);
  return dimmer::demo::Run(options);
}
