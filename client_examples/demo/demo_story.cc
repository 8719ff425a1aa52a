#include "client_examples/demo/demo_story.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

namespace dimmer::demo {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kPrompt = "Once upon a time";

// The same story, dense and with less and less light.
std::vector<Setting> Walk() {
  std::vector<Setting> settings(3);
  settings[0].name = "tau 0 (dense)";
  settings[0].budget.set_tau(0);
  settings[1].name = "model's default";
  settings[2].name = "flop_fraction 0.5";
  settings[2].budget.set_flop_fraction(0.5);
  return settings;
}

// What a language model may write, safe to print.
std::string Printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](unsigned char c) { return (c < ' ' && c != '\n' && c != '\t') || c == 0x7f; }, '?');
  return text;
}

struct Story {
  std::string text;
  double first_seconds = 0, last_seconds = 0;  // since the call; 0: there was no piece
  v1::GenerateResponse last;
};

class Teller {
 public:
  Teller(v1::Inference::Stub& stub, const std::string& model, const Options& options)
      : stub_(stub), model_(model), options_(options), color_(isatty(STDOUT_FILENO) == 1) {}

  grpc::Status Tell(const std::string& prompt, const Setting& setting, Story* story) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(120));
    v1::GenerateRequest request;
    request.set_model(model_);
    request.set_prompt(prompt);
    request.set_max_tokens(options_.max_tokens);
    request.set_temperature(0.8F);
    request.set_seed(options_.seed);
    *request.mutable_budget() = setting.budget;
    const Clock::time_point start = Clock::now();
    const auto reader = stub_.Generate(&context, request);
    Say(fmt::format("\n{}{}, {}{}\n{}{}{}", Ink("\033[1m"), model_, setting.name, Ink("\033[0m"),
                    Ink("\033[2m"), prompt, Ink("\033[0m")));
    while (reader->Read(&story->last)) {
      if (!story->last.token_ids().empty()) {
        story->last_seconds = std::chrono::duration<double>(Clock::now() - start).count();
        if (story->first_seconds == 0) story->first_seconds = story->last_seconds;
      }
      story->text += story->last.text();
      Say(Printable(story->last.text()));
    }
    grpc::Status status = reader->Finish();
    Say(status.ok() ? Cost(*story) : "\n");
    return status;
  }

 private:
  const char* Ink(const char* sequence) const { return color_ ? sequence : ""; }

  void Say(const std::string& text) const {
    if (options_.json) return;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  std::string Cost(const Story& story) const {
    const v1::Usage& usage = story.last.usage();
    const double dense = double(std::max<uint64_t>(usage.dense_flops(), 1));
    const double seconds = std::max(story.last_seconds, 1e-9);
    return fmt::format(
        "\n{}  {} tokens, {:.1f} of {:.1f} MFLOPs: {:.0f}%, tau {:.3f}; first token after {:.1f} "
        "ms, all after {:.1f} ms: {:.0f}/s{}\n",
        Ink("\033[2m"), usage.output_tokens(), double(usage.flops()) / 1e6, dense / 1e6,
        100 * double(usage.flops()) / dense, usage.tau(), 1e3 * story.first_seconds,
        1e3 * story.last_seconds, usage.output_tokens() / seconds, Ink("\033[0m"));
  }

  v1::Inference::Stub& stub_;
  const std::string& model_;
  const Options& options_;
  const bool color_;
};

}  // namespace

std::string ShowGenerator(v1::Inference::Stub& stub, const std::string& model,
                          const Options& options, nlohmann::ordered_json& rows) {
  Teller teller(stub, model, options);
  std::vector<std::string> prompts = options.texts;
  if (prompts.empty()) prompts.emplace_back(kPrompt);
  for (const std::string& prompt : prompts) {
    for (const Setting& setting : options.settings.empty() ? Walk() : options.settings) {
      Story story;
      const grpc::Status status = teller.Tell(prompt, setting, &story);
      if (!status.ok()) {
        return fmt::format("{}, {}, {}: error {}: {}", model, prompt, setting.name,
                           static_cast<int>(status.error_code()), status.error_message());
      }
      const v1::Usage& usage = story.last.usage();
      rows.push_back({{"model", model},
                      {"prompt", prompt},
                      {"budget", setting.name},
                      {"text", story.text},
                      {"finish_reason", v1::FinishReason_Name(story.last.finish_reason())},
                      {"seed", story.last.seed()},
                      {"tau", usage.tau()},
                      {"flops", usage.flops()},
                      {"dense_flops", usage.dense_flops()},
                      {"output_tokens", usage.output_tokens()},
                      {"budget_clamped", usage.budget_clamped()},
                      {"first_seconds", story.first_seconds},
                      {"last_seconds", story.last_seconds}});
    }
  }
  return "";
}

}  // namespace dimmer::demo
