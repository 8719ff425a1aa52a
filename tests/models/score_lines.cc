// Runs a decoder over standard input, for comparisons with other implementations.
//   score_lines DIRECTORY THREADS < lines
// Each line {"texts": [[id, ...], ...], "new_tokens": n, "tau": t}, run as one batch; answers
// {"texts": [{"token_logprobs": [...], "greedy": [...], "logprobs": [...]}, ...]}, or {"error":
// ...} in place of a text's answers. new_tokens 0: nothing is generated.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/layers/kv_cache.h"
#include "engine/layers/workspace.h"
#include "engine/models/model.h"

namespace {

using nlohmann::json;

class Recorder : public dimmer::TokenSink {
 public:
  Verdict OnToken(int32_t, float logprob) override {
    logprobs.push_back(logprob);
    return Verdict::kContinue;
  }
  bool ready() const override { return true; }
  std::vector<float> logprobs;
};

struct Text {
  Recorder sink;
  dimmer::Sequence scored;
  dimmer::Sequence generated;
};

// Adds the text's two sequences to `batch`, where there is something to do.
void Start(const json& ids, uint32_t new_tokens, double tau, const dimmer::ModelInfo& info,
           dimmer::KvPool& pool, Text& text, std::vector<dimmer::Sequence*>& batch) {
  for (dimmer::Sequence* sequence : {&text.scored, &text.generated}) {
    sequence->ids = ids.get<std::vector<int32_t>>();
    sequence->plan.module_tau.assign(info.cost.moe.size(), tau);
    sequence->kv = *pool.Reserve(sequence->ids.size() + new_tokens);
  }
  text.scored.task = dimmer::Task::kScoring;
  if (ids.size() > 1) batch.push_back(&text.scored);
  if (new_tokens == 0) return;
  text.generated.task = dimmer::Task::kGeneration;
  text.generated.generation = std::make_unique<dimmer::Generation>();
  text.generated.generation->max_new_tokens = new_tokens;
  text.generated.generation->sink = &text.sink;
  batch.push_back(&text.generated);
}

json AnswerOf(const Text& text, size_t prompt) {
  for (const dimmer::Sequence* sequence : {&text.scored, &text.generated}) {
    if (!sequence->status.ok()) return {{"error", std::string(sequence->status.message())}};
  }
  const std::vector<int32_t>& ids = text.generated.ids;
  const std::vector<int32_t> greedy(ids.begin() + static_cast<std::ptrdiff_t>(prompt), ids.end());
  return {{"token_logprobs", text.scored.token_logprobs},
          {"greedy", greedy},
          {"logprobs", text.sink.logprobs}};
}

json Run(const dimmer::Model& model, const json& order, dimmer::ThreadPool& threads,
         dimmer::Workspace& workspace) {
  const auto new_tokens = order.at("new_tokens").get<uint32_t>();
  const json& texts = order.at("texts");
  size_t pages = 0;
  for (const json& ids : texts) pages += 2 * dimmer::KvPool::PagesFor(ids.size() + new_tokens);
  dimmer::KvPool pool(model.info().kv, pages);
  std::vector<Text> running(texts.size());
  std::vector<dimmer::Sequence*> batch;
  for (size_t i = 0; i < texts.size(); ++i) {
    Start(texts[i], new_tokens, order.value("tau", 0.0), model.info(), pool, running[i], batch);
  }
  dimmer::StepContext context{threads, workspace};
  const auto finished = [](const dimmer::Sequence* sequence) { return sequence->finished; };
  while (!std::all_of(batch.begin(), batch.end(), finished)) model.Forward(batch, context);
  json answers = json::array();
  for (size_t i = 0; i < texts.size(); ++i)
    answers.push_back(AnswerOf(running[i], texts[i].size()));
  return {{"texts", answers}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: score_lines DIRECTORY THREADS\n");
    return 2;
  }
  const auto package = dimmer::Package::Open(argv[1]);
  if (!package.ok()) {
    std::cerr << package.status() << "\n";
    return 1;
  }
  const auto model = dimmer::LoadModel(*package);
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    return 1;
  }
  dimmer::ThreadPool threads(static_cast<size_t>(std::atoi(argv[2])));
  dimmer::Workspace workspace;
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << Run(**model, json::parse(line), threads, workspace).dump() << std::endl;
  }
  return 0;
}
