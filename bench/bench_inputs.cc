#include <algorithm>
#include <fstream>
#include <thread>

#include "bench/bench.h"
#include "engine/text/tokenizer.h"
#include "engine/util/status.h"

namespace dimmer::bench {
namespace {

const std::vector<std::string>& BuiltInTexts() {
  static const auto* const kTexts = new std::vector<std::string>{
      "i woke up early today and felt that the whole week might turn out well after all",
      "nobody answered the phone and i started to worry that something had gone badly wrong",
      "she thanked me twice for the small favour and i was quietly proud for the rest of the day",
      "they cancelled the trip an hour before we were to leave and i am still furious about it",
      "the old street looked smaller than i remembered and it made me a little sad",
      "he opened the door in the dark and i nearly jumped out of my skin",
      "i cannot believe that we won after being three goals behind at the break",
      "my brother called just to ask how i was and i felt loved",
      "the letter said no once more and i do not know how often i can try again",
      "we sat by the water until midnight and talked about nothing and it was perfect",
      "the noise from upstairs went on until four and i lost my temper in the end",
      "i keep checking the results although they told me not to expect them before friday"};
  return *kTexts;
}

}  // namespace

double Runner::Run(std::span<Sequence> batch) {
  std::vector<Sequence*> pointers;
  for (Sequence& sequence : batch) pointers.push_back(&sequence);
  StepContext context{*pool, workspace, nullptr};
  const auto start = std::chrono::steady_clock::now();
  model->Forward(pointers, context);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

absl::StatusOr<std::unique_ptr<Runner>> LoadRunner(const std::string& directory, size_t threads) {
  auto runner = std::make_unique<Runner>();
  DIMMER_ASSIGN_OR_RETURN(const Package package, Package::Open(directory));
  DIMMER_ASSIGN_OR_RETURN(runner->model, LoadModel(package));
  if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
  runner->pool = std::make_unique<ThreadPool>(threads);
  return runner;
}

absl::StatusOr<std::vector<std::string>> ReadTexts(const std::string& file) {
  if (file.empty()) return BuiltInTexts();
  std::ifstream stream(file);
  if (!stream) return absl::NotFoundError(fmt::format("{}: can't be read", file));
  std::vector<std::string> texts;
  for (std::string line; std::getline(stream, line);) {
    const size_t label = line.rfind(';');
    if (label != std::string::npos) line.resize(label);
    if (!line.empty()) texts.push_back(std::move(line));
  }
  if (texts.empty()) return absl::InvalidArgumentError(fmt::format("{}: found no text", file));
  return texts;
}

absl::StatusOr<std::vector<std::vector<int32_t>>> EncodeTexts(const std::string& directory,
                                                              const std::vector<std::string>& texts,
                                                              size_t tokens, size_t max_tokens) {
  DIMMER_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(directory));
  EncodeOptions options;
  options.max_tokens = max_tokens;
  options.truncate = true;
  std::vector<std::vector<int32_t>> encoded;
  for (size_t i = 0; i < texts.size(); ++i) {
    std::string text = texts[i];
    // A text too short goes on with the texts after it.
    for (size_t next = i + 1;; ++next) {
      options.max_tokens = tokens > 0 ? std::min(tokens, max_tokens) : max_tokens;
      DIMMER_ASSIGN_OR_RETURN(Encoding encoding, tokenizer->Encode(text, std::nullopt, options));
      if (encoding.ids.size() >= options.max_tokens || tokens == 0) {
        encoded.push_back(std::move(encoding.ids));
        break;
      }
      text += ' ' + texts[next % texts.size()];
    }
  }
  return encoded;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace dimmer::bench
