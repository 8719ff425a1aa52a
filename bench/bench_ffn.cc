// dimmer-bench ffn: one feed-forward layer, dense and by experts, with random routing. For tuning
// kernels; claims about models need real routing (dimmer-bench model).
#include <algorithm>
#include <cstdio>
#include <map>
#include <random>

#include "bench/bench.h"
#include "engine/kernels/expert_ffn.h"
#include "engine/kernels/matmul.h"
#include "engine/kernels/rowwise.h"
#include "engine/layers/moe_layer.h"
#include "engine/util/status.h"

namespace dimmer::bench {
namespace {

constexpr size_t kRouterWidth = 64;

struct Options {
  size_t d = 384;
  size_t hidden = 1536;
  size_t expert_size = 16;
  std::vector<size_t> tokens = {1, 22, 64, 704};
  std::vector<double> shares = {1, 0.5, 0.25, 0.14};
  WeightFormat format = WeightFormat::kF16;
  size_t threads = 1;
  double seconds = 0.3;
};

std::vector<float> RandomFloats(size_t count, float scale, std::mt19937& random) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// Median seconds of one call.
template <typename F>
double Time(double seconds, const F& run) {
  std::vector<double> times;
  run();
  for (double total = 0; total < seconds || times.size() < 5; total += times.back()) {
    const auto start = std::chrono::steady_clock::now();
    run();
    times.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return Median(std::move(times));
}

absl::Status RunFfn(const Options& o) {
  if (o.hidden % o.expert_size != 0) {
    return absl::InvalidArgumentError(
        fmt::format("--expert-size: found {}, expected a divisor of {}", o.expert_size, o.hidden));
  }
  std::mt19937 random(1);
  const size_t experts = o.hidden / o.expert_size;
  PackedFfn ffn = MakePackedFfn(o.d, experts, o.expert_size, Activation::kRelu, o.format);
  const auto w = RandomFloats(o.d * o.hidden, 0.05f, random);
  PackFfnIn(w, RandomFloats(o.hidden, 0.1f, random), ffn);
  PackFfnOut(w, RandomFloats(o.d, 0.1f, random), ffn);
  // Random routers; a top-k gate runs the same number of experts for every token.
  Router router(o.d, kRouterWidth, experts, o.format);
  router.first().Set(0, RandomFloats(kRouterWidth * o.d, 0.05f, random), {});
  router.second().Set(0, RandomFloats(experts * kRouterWidth, 0.05f, random), {});
  MoeLayer layer(std::move(ffn), std::move(router), GateSpec{GateKind::kDynamicK, 0, 0});
  ThreadPool pool(o.threads);
  Workspace workspace;
  fmt::print("{} x {}, {} experts of {}, router {}, {} threads, {}\n", o.d, o.hidden, experts,
             o.expert_size, kRouterWidth, o.threads, InstructionSet());
  fmt::print("{:>7} {:>7} {:>10} {:>10} {:>9}\n", "tokens", "share", "us", "GFLOP/s", "of dense");
  const size_t stride = PaddedWidth(o.d);
  const size_t most = *std::max_element(o.tokens.begin(), o.tokens.end());
  const std::vector<float> input = RandomFloats(stride * most, 1, random);
  std::vector<float> out(input.size());
  for (size_t tokens : o.tokens) {
    double dense = 0;
    for (double share : o.shares) {
      MoeSequence sequence;
      sequence.rows = {0, tokens};
      const auto pairs = static_cast<uint64_t>(share * static_cast<double>(tokens * experts));
      if (share < 1) sequence.quota = QuotaGate{std::max<uint64_t>(pairs, tokens), 0, 1, false};
      const double seconds = Time(o.seconds, [&] {
        layer.Apply(input.data(), input.data(), out.data(), {&sequence, 1}, pool, workspace,
                    nullptr);
      });
      if (dense == 0) dense = seconds;
      const double flops = 4.0 * static_cast<double>(o.d * o.expert_size * sequence.pairs);
      fmt::print("{:>7} {:>7.2f} {:>10.1f} {:>10.1f} {:>9.3f}\n", tokens, share, 1e6 * seconds,
                 1e-9 * flops / seconds, seconds / dense);
    }
  }
  return absl::OkStatus();
}

}  // namespace

void AddFfnCommand(CLI::App& app, Command& command) {
  auto options = std::make_shared<Options>();
  CLI::App* sub =
      app.add_subcommand("ffn", "One feed-forward layer, dense and by experts, random routing");
  sub->add_option("--width", options->d, "Model width")->capture_default_str();
  sub->add_option("--hidden", options->hidden, "Neurons")->capture_default_str();
  sub->add_option("--expert-size", options->expert_size, "Neurons per expert")
      ->capture_default_str();
  sub->add_option("--tokens", options->tokens, "Rows")->delimiter(',')->capture_default_str();
  sub->add_option("--share", options->shares, "Shares of experts run")
      ->delimiter(',')
      ->capture_default_str();
  sub->add_option("--format", options->format, "What the weights are stored in")
      ->transform(CLI::CheckedTransformer(std::map<std::string, WeightFormat>{
          {"F32", WeightFormat::kF32}, {"F16", WeightFormat::kF16}, {"BF16", WeightFormat::kBF16}}))
      ->default_str("F16");
  sub->add_option("--threads", options->threads, "Compute threads")->capture_default_str();
  sub->callback([options, &command] { command = [options] { return RunFfn(*options); }; });
}

}  // namespace dimmer::bench
