// `dimmerctl classify`.
#include <fmt/format.h>

#include <cstdio>
#include <iostream>

#include "engine/util/status.h"
#include "server/ctl/classify_view.h"
#include "server/ctl/commands.h"
#include "server/ctl/connection.h"
#include "server/ctl/terminal.h"

namespace dimmer::ctl {
namespace {

// Texts of one call. Long inputs are many calls, answered as they come.
constexpr size_t kBatch = 64;

class Classifier {
 public:
  explicit Classifier(const Options& options)
      : options_(options),
        terminal_(LookAtTerminal(options.color)),
        stub_(ConnectInference(options)),
        // A limit for the whole call needs the whole call.
        batch_(options.classify.budget().has_max_flops() ? SIZE_MAX : kBatch) {}

  absl::Status Add(const std::string& text) {
    texts_.push_back(text);
    return texts_.size() >= batch_ ? Send() : absl::OkStatus();
  }

  absl::Status Finish() {
    DIMMER_RETURN_IF_ERROR(Send());
    if (total_.texts == 0) return absl::InvalidArgumentError("standard input: no texts");
    if (!options_.json) fmt::print("{}", Paint(RenderTotal(total_), terminal_.color));
    return absl::OkStatus();
  }

 private:
  absl::Status Send() {
    if (texts_.empty()) return absl::OkStatus();
    v1::ClassifyRequest request = options_.classify;
    request.mutable_texts()->Add(texts_.begin(), texts_.end());
    grpc::ClientContext context;
    SetDeadline(options_, &context);
    v1::ClassifyResponse answer;
    DIMMER_RETURN_IF_ERROR(
        Explain(stub_->Classify(&context, request, &answer), options_, Port::kInference));
    if (size_t(answer.results_size()) != texts_.size()) {
      return absl::InternalError(fmt::format("{}: found {} results, expected {}", options_.address,
                                             answer.results_size(), texts_.size()));
    }
    if (!options_.json && total_.texts == 0) {
      fmt::print("{}", Paint(std::vector<Line>{ClassifyHeader()}, terminal_.color));
    }
    const size_t columns = terminal_.live ? terminal_.columns : SIZE_MAX;
    for (size_t i = 0; i < texts_.size(); ++i) {
      const v1::Classification& result = answer.results(int(i));
      fmt::print("{}", options_.json
                           ? ResultLine(texts_[i], result)
                           : Paint(RenderResult(texts_[i], result, columns), terminal_.color));
    }
    std::fflush(stdout);
    total_.Add(answer.usage(), texts_.size());
    texts_.clear();
    return absl::OkStatus();
  }

  const Options& options_;
  const Terminal terminal_;
  const std::unique_ptr<v1::Inference::Stub> stub_;
  const size_t batch_;
  std::vector<std::string> texts_;
  ClassifyTotal total_;
};

}  // namespace

absl::Status RunClassify(const Options& options) {
  Classifier classifier(options);
  for (const std::string& text : options.texts) {
    if (text != "-") {
      DIMMER_RETURN_IF_ERROR(classifier.Add(text));
      continue;
    }
    for (std::string line; std::getline(std::cin, line);) {
      if (!line.empty()) DIMMER_RETURN_IF_ERROR(classifier.Add(line));
    }
  }
  return classifier.Finish();
}

}  // namespace dimmer::ctl
