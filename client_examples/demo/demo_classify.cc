#include "client_examples/demo/demo_classify.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <iterator>
#include <vector>

#include "client_examples/demo/demo_table.h"

namespace dimmer::demo {
namespace {

constexpr int kCalls = 3;

const char* const kTexts[] = {
    "i feel proud of how far our little team has come this year",
    "i feel so lonely in this house since she moved away",
    "i feel furious that they cancelled our train for the third time",
    "i feel terrified of what the doctor is going to say tomorrow",
    "i feel amazed that all of you came out in this weather",
    "i feel so tender and devoted when he falls asleep holding my hand",
};

// A walk from the model's default down to its floor.
std::vector<Setting> Walk() {
  std::vector<Setting> settings;
  const auto add = [&](std::string name) -> v1::Budget& {
    return settings.emplace_back(Setting{std::move(name), {}}).budget;
  };
  add("model's default");
  add("tau 0 (dense)").set_tau(0);
  add("flop_fraction 0.7").set_flop_fraction(0.7);
  add("flop_fraction 0.5").set_flop_fraction(0.5);
  add("tau 1 (floor)").set_tau(1);
  return settings;
}

grpc::Status Classify(v1::Inference::Stub& stub, const std::string& model, const std::string& text,
                      const v1::Budget& budget, v1::ClassifyResponse* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  v1::ClassifyRequest request;
  request.set_model(model);
  request.add_texts(text);
  *request.mutable_budget() = budget;
  return stub.Classify(&context, request, response);
}

// The fastest of a few calls, since the machine may do other things too. The answer is the same.
grpc::Status ClassifyBest(v1::Inference::Stub& stub, const std::string& model,
                          const std::string& text, const v1::Budget& budget,
                          v1::ClassifyResponse* best) {
  grpc::Status status = Classify(stub, model, text, budget, best);
  for (int again = 1; again < kCalls && status.ok(); ++again) {
    v1::ClassifyResponse response;
    status = Classify(stub, model, text, budget, &response);
    if (response.usage().compute_us() < best->usage().compute_us()) best->Swap(&response);
  }
  return status;
}

}  // namespace

std::string ShowClassifier(v1::Inference::Stub& stub, const std::string& model,
                           const Options& options, nlohmann::ordered_json& rows) {
  const std::vector<Setting> settings = options.settings.empty() ? Walk() : options.settings;
  std::vector<std::string> texts = options.texts;
  if (texts.empty()) texts.assign(std::begin(kTexts), std::end(kTexts));
  std::vector<Answer> answers;
  for (const std::string& text : texts) {
    for (const Setting& setting : settings) {
      v1::ClassifyResponse response;
      const grpc::Status status = ClassifyBest(stub, model, text, setting.budget, &response);
      if (!status.ok()) {
        return fmt::format("{}, {}: error {}: {}", text, setting.name,
                           static_cast<int>(status.error_code()), status.error_message());
      }
      if (response.results_size() != 1 || response.results(0).labels_size() == 0) {
        return fmt::format("{} answered without a label", model);
      }
      answers.push_back({text, setting.name, response.results(0)});
    }
  }
  if (options.json) {
    AddRows(model, answers, rows);
  } else {
    fmt::print("{}", Table(answers, settings, isatty(STDOUT_FILENO) == 1));
  }
  return "";
}

}  // namespace dimmer::demo
