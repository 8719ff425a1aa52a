// Classifies texts at three budgets and shows what each answer cost.
// Exit status: 0; 1 where a call failed; 2 where it was called wrongly.
#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "dimmer/v1/inference.grpc.pb.h"
#include "retry.h"
#include "usage.h"

namespace {

using dimmer::v1::Budget;
using dimmer::v1::ClassifyRequest;
using dimmer::v1::ClassifyResponse;
using dimmer::v1::Inference;
using dimmer_example::Describe;

struct Options {
  std::string target = "127.0.0.1:8001";
  std::string model = "emotion";
  std::vector<std::string> texts = {"i feel so happy and loved today",
                                    "i am scared of what the doctor will say"};
  double tau = 0.1;
  double flop_fraction = 0.5;
  uint64_t max_flops = 0;
};

void Show(const std::string& title, const Options& options, const ClassifyResponse& answer) {
  fmt::print("{}\n", title);
  for (int i = 0; i < answer.results_size(); ++i) {
    const dimmer::v1::Classification& result = answer.results(i);
    const dimmer::v1::Label& best = result.labels(0);
    fmt::print("  \"{}\": {} {:.4f}\n", options.texts[i], best.name(), best.score());
    fmt::print("    used: {}\n", Describe(result.usage()));
    if (result.usage().layers().empty()) continue;  // not converted: always dense
    fmt::print("    experts per token, by layer:");
    for (const dimmer::v1::LayerUsage& layer : result.usage().layers()) {
      fmt::print(" {:.1f}", layer.experts_run());
    }
    fmt::print(" of {}\n", result.usage().layers(0).experts());
  }
  fmt::print("  call: {}; queued {} us, computed {} us\n", Describe(answer.usage()),
             answer.usage().queue_us(), answer.usage().compute_us());
}

// False, with a line on stderr, where the call failed.
bool Classify(Inference::Stub& stub, const Options& options, const std::string& title,
              const Budget& budget, ClassifyResponse* answer) {
  ClassifyRequest request;
  request.set_model(options.model);
  request.mutable_texts()->Add(options.texts.begin(), options.texts.end());
  *request.mutable_budget() = budget;
  const grpc::Status status = dimmer_example::CallWithRetry(
      [&](grpc::ClientContext& context) { return stub.Classify(&context, request, answer); },
      dimmer_example::Seconds(30));
  if (!status.ok()) {
    fmt::print(stderr, "classify: {}: error {}: {}\n", title, static_cast<int>(status.error_code()),
               status.error_message());
    return false;
  }
  Show(title, options, *answer);
  return true;
}

int Run(const Options& options) {
  const auto channel = grpc::CreateChannel(options.target, grpc::InsecureChannelCredentials());
  const auto stub = Inference::NewStub(channel);
  ClassifyResponse answer;
  Budget budget;

  budget.set_tau(options.tau);
  if (!Classify(*stub, options, fmt::format("tau {}", options.tau), budget, &answer)) return 1;
  // Every answer says what the dense model would have cost: a measure for the hard limit below.
  const uint64_t dense_flops = answer.usage().dense_flops();

  budget.set_flop_fraction(options.flop_fraction);
  const std::string share = fmt::format("flop_fraction {}", options.flop_fraction);
  if (!Classify(*stub, options, share, budget, &answer)) return 1;

  budget.set_max_flops(options.max_flops > 0 ? options.max_flops : dense_flops * 6 / 10);
  const std::string limit = fmt::format("max_flops {}", budget.max_flops());
  return Classify(*stub, options, limit, budget, &answer) ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Classifies texts at three budgets and shows what each answer cost."};
  app.add_option("texts", options.texts, "Texts of your own");
  app.add_option("--target", options.target, "gRPC port, HOST:PORT")->capture_default_str();
  app.add_option("--model", options.model, "A classifier")->capture_default_str();
  app.add_option("--tau", options.tau, "0: dense, 1: least")->capture_default_str();
  app.add_option("--flop-fraction", options.flop_fraction, "Of each text's dense FLOPs")
      ->capture_default_str();
  app.add_option("--max-flops", options.max_flops, "Of the whole call; 0: 60% of the dense model's")
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return Run(options);
}
