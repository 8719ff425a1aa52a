// Streams a text at three budgets and shows what each cost.
// Exit status: 0; 1 where a call failed; 2 where it was called wrongly.
#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "dimmer/v1/inference.grpc.pb.h"
#include "retry.h"
#include "usage.h"

namespace {

using dimmer::v1::Budget;
using dimmer::v1::GenerateRequest;
using dimmer::v1::GenerateResponse;
using dimmer::v1::Inference;

struct Options {
  std::string target = "127.0.0.1:8001";
  std::string model = "stories";
  std::string prompt = "Once upon a time";
  uint32_t max_tokens = 64;
  double tau = 0.1;
  double flop_fraction = 0.6;
  uint64_t max_flops = 0;
  float temperature = 0;
  uint64_t seed = 0;
  std::vector<std::string> stop;
};

void Print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// Prints the pieces as they come. `last` is the message that says how it ended, with the usage.
grpc::Status Stream(Inference::Stub& stub, grpc::ClientContext& context,
                    const GenerateRequest& request, GenerateResponse* last) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  std::optional<double> first_ms;
  const auto reader = stub.Generate(&context, request);
  bool any = false;
  for (; reader->Read(last); any = true) {
    if (!any) Print(request.prompt());  // not where the server is full: that is tried again
    if (!first_ms.has_value() && !last->token_ids().empty()) {
      first_ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
    }
    Print(last->text());
  }
  grpc::Status status = reader->Finish();
  if (any) Print("\n");
  if (!status.ok()) return status;
  fmt::print("  {}, seed {}: {}\n", FinishReason_Name(last->finish_reason()), last->seed(),
             dimmer_example::Describe(last->usage()));
  if (first_ms.has_value()) fmt::print("  first token after {:.1f} ms\n", *first_ms);
  return status;
}

// False, with a line on stderr, where the call failed.
bool Generate(Inference::Stub& stub, const Options& options, const std::string& title,
              const Budget& budget, GenerateResponse* last) {
  GenerateRequest request;
  request.set_model(options.model);
  request.set_prompt(options.prompt);
  request.set_max_tokens(options.max_tokens);
  request.set_temperature(options.temperature);
  request.set_seed(options.seed);
  request.mutable_stop()->Add(options.stop.begin(), options.stop.end());
  *request.mutable_budget() = budget;
  fmt::print("{}\n", title);
  const grpc::Status status = dimmer_example::CallWithRetry(
      [&](grpc::ClientContext& context) { return Stream(stub, context, request, last); },
      dimmer_example::Seconds(60));
  if (status.ok()) return true;
  fmt::print(stderr, "generate: {}: error {}: {}\n", title, static_cast<int>(status.error_code()),
             status.error_message());
  return false;
}

int Run(const Options& options) {
  const auto channel = grpc::CreateChannel(options.target, grpc::InsecureChannelCredentials());
  const auto stub = Inference::NewStub(channel);
  GenerateResponse last;
  Budget budget;

  budget.set_tau(options.tau);
  if (!Generate(*stub, options, fmt::format("tau {}", options.tau), budget, &last)) return 1;
  const uint64_t dense_flops = last.usage().dense_flops();

  budget.set_flop_fraction(options.flop_fraction);
  const std::string share = fmt::format("flop_fraction {}", options.flop_fraction);
  if (!Generate(*stub, options, share, budget, &last)) return 1;

  // A hard limit: the text ends where the next token could pass it (finish_reason BUDGET).
  budget.set_max_flops(options.max_flops > 0 ? options.max_flops : dense_flops * 6 / 10);
  const std::string limit = fmt::format("max_flops {}", budget.max_flops());
  return Generate(*stub, options, limit, budget, &last) ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Streams a text at three budgets and shows what each cost."};
  app.add_option("prompt", options.prompt, "What to continue")->capture_default_str();
  app.add_option("--target", options.target, "gRPC port, HOST:PORT")->capture_default_str();
  app.add_option("--model", options.model, "A language model")->capture_default_str();
  app.add_option("--max-tokens", options.max_tokens, "Of each text")->capture_default_str();
  app.add_option("--tau", options.tau, "0: dense, 1: least")->capture_default_str();
  app.add_option("--flop-fraction", options.flop_fraction, "Of the dense FLOPs")
      ->capture_default_str();
  app.add_option("--max-flops", options.max_flops,
                 "Of prompt and output; 0: 60% of the dense model's")
      ->capture_default_str();
  app.add_option("--temperature", options.temperature, "0: greedy")->capture_default_str();
  app.add_option("--seed", options.seed, "0: a fresh one")->capture_default_str();
  app.add_option("--stop", options.stop, "End before it. May be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return Run(options);
}
