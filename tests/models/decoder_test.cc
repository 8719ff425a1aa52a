// What holds for every decoder family: bits, budgets, ends.
#include <gmock/gmock.h>

#include <atomic>
#include <chrono>

#include "tests/models/decoder_runner.h"

namespace dimmer {
namespace {

class Decoders : public testing::TestWithParam<TestDecoder::Family> {
 protected:
  Decoders() { plain_.family = GetParam(); }
  Call Ask(size_t tokens, uint32_t seed, uint32_t max_new_tokens = 8) const {
    return {.ids = RandomIds(plain_, tokens, seed), .max_new_tokens = max_new_tokens};
  }
  Call Ask(const Model& model, size_t tokens, uint32_t seed, double tau) const {
    Call call = Ask(tokens, seed);
    call.plan = TauPlan(model, tau);
    return call;
  }
  TestDecoder plain_;
};

std::string FamilyName(const testing::TestParamInfo<TestDecoder::Family>& info) {
  return info.param == TestDecoder::Family::kGpt2 ? "Gpt2" : "Llama";
}

INSTANTIATE_TEST_SUITE_P(Models, Decoders,
                         testing::Values(TestDecoder::Family::kGpt2, TestDecoder::Family::kLlama),
                         FamilyName);

TEST_P(Decoders, TauZeroIsTheDensePath) {
  const auto dense = Load(plain_);
  const auto moe = Load(plain_.Converted());
  for (size_t tokens : {1, 5, 64, 100}) {
    for (Task task : {Task::kGeneration, Task::kScoring}) {
      if (task == Task::kScoring && tokens == 1) continue;
      Call plain = Ask(*dense, tokens, 7, 0);
      plain.task = task;
      const Answer want = RunCall(*dense, plain);
      ASSERT_TRUE(want.status.ok()) << want.status;
      Call zero = Ask(*moe, tokens, 7, 0);
      Call tiny = Ask(*moe, tokens, 7, 1e-300);  // routed, and every expert passes
      zero.task = tiny.task = task;
      const std::vector<Answer> got =
          RunCalls(*moe, {Ask(*moe, 70, 1, 0.4), zero, tiny, Ask(*moe, 3, 2, 1)}, {.threads = 2});
      EXPECT_EQ(got[1], want);
      EXPECT_EQ(got[2].output, want.output);
      EXPECT_EQ(got[2].logprobs, want.logprobs);
      EXPECT_GT(got[2].usage.flops, want.usage.flops);  // the routers
    }
  }
}

// Any mix of tasks, budgets and samplings; calls that come and go; any threads; any bound on prompt
// rows: the same bits, tokens and FLOPs as alone.
TEST_P(Decoders, BitsDoNotDependOnWhatElseRuns) {
  TestDecoder decoder = plain_;
  decoder.width = 40;
  decoder.hidden = 120;
  decoder.experts = 5;  // of 24 neurons: no whole panels
  const auto model = Load(decoder);
  std::mt19937 random(11);
  std::vector<Call> calls;
  for (uint32_t i = 0; i < 24; ++i) {
    const size_t lengths[] = {1, 5, 63, 64, 65, 130, 200};
    Call call = Ask(lengths[random() % 7] + random() % 3, i, 1 + random() % 20);
    if (i % 5 == 4) call.task = Task::kScoring;
    if (call.task == Task::kScoring && call.ids.size() == 1) call.ids.push_back(3);
    const double taus[] = {0, 0.1, 0.3, 1};
    call.plan = TauPlan(*model, taus[i % 4]);
    if (i % 3 == 1) {
      call.plan = PlanFor(*model, call, {Budget::Kind::kFlopFraction, 0.8, 0});
    } else if (i % 6 == 2) {
      // In the middle between the least and the dense FLOPs, of a prompt and half of the rest.
      const CostModel& cost = model->info().cost;
      const uint64_t tokens = call.ids.size() + call.max_new_tokens / 2;
      const uint64_t most = (cost.FloorFlops(tokens) + cost.DenseFlops(tokens)) / 2 +
                            cost.sequence_flops * call.max_new_tokens;
      call.plan = PlanFor(*model, call, {Budget::Kind::kMaxFlops, 0, most});
    }
    if (i % 2 == 0) {
      call.sampling = {
          .temperature = 1.2f, .top_k = i % 4 == 0 ? 10u : 0u, .top_p = 0.95f, .seed = i};
    }
    calls.push_back(call);
  }
  std::vector<Answer> alone;
  for (const Call& call : calls) {
    alone.push_back(RunCall(*model, call));
    ASSERT_TRUE(alone.back().status.ok()) << alone.back().status;
    ASSERT_NE(alone.back().output.empty(), call.task == Task::kGeneration);
  }
  for (size_t threads : {1, 2, 3}) {
    for (uint32_t max_prompt_tokens : {0u, 1u, 64u, 200u}) {
      const std::vector<Answer> together =
          RunCalls(*model, calls, {threads, max_prompt_tokens, static_cast<uint32_t>(threads)});
      for (size_t i = 0; i < calls.size(); ++i) {
        ASSERT_EQ(together[i], alone[i])
            << "call " << i << ", threads " << threads << ", prompt rows " << max_prompt_tokens;
      }
    }
  }
}

TEST_P(Decoders, ScoresAreTheLogProbabilitiesOfTheGeneration) {
  const auto model = Load(plain_.Converted());
  for (double tau : {0.0, 0.4}) {
    for (size_t tokens : {1, 60, 64, 70}) {
      const Call call = Ask(*model, tokens, 3, tau);
      const Answer generated = RunCall(*model, call);
      Call score = call;
      score.task = Task::kScoring;
      score.ids.insert(score.ids.end(), generated.output.begin(), generated.output.end());
      const Answer scored = RunCall(*model, score);
      ASSERT_TRUE(scored.status.ok()) << scored.status;
      ASSERT_EQ(scored.logprobs.size(), score.ids.size() - 1);
      EXPECT_EQ(std::vector<float>(scored.logprobs.end() - 8, scored.logprobs.end()),
                generated.logprobs);
      EXPECT_EQ(scored.usage.prompt_tokens, score.ids.size());
      EXPECT_EQ(scored.usage.output_tokens, 0u);
    }
  }
}

// A greedy text is the same token by token as from a longer prompt: the cache holds what it should.
TEST_P(Decoders, GoingOnFromThePromptIsTheSame) {
  const auto model = Load(plain_);
  const Answer whole = RunCall(*model, Ask(60, 5, 16));
  for (size_t cut : {1, 4, 5, 9}) {
    Call rest = Ask(60, 5, static_cast<uint32_t>(16 - cut));
    rest.ids.insert(rest.ids.end(), whole.output.begin(),
                    whole.output.begin() + static_cast<std::ptrdiff_t>(cut));
    const Answer got = RunCall(*model, rest);
    EXPECT_EQ(got.output,
              std::vector<int32_t>(whole.output.begin() + static_cast<std::ptrdiff_t>(cut),
                                   whole.output.end()));
  }
}

// The last token takes no position: a text may be one longer than there are.
TEST_P(Decoders, TheContextCanBeFilled) {
  const auto model = Load(plain_);
  const Answer answer = RunCall(*model, Ask(290, 1, 11));
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.output.size(), 11u);
  EXPECT_EQ(RunCall(*model, Ask(290, 1, 12)).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(Decoders, CountsFlopsExactly) {
  const TestDecoder decoder = plain_.Converted();
  const auto model = Load(decoder);
  const bool gpt2 = GetParam() == TestDecoder::Family::kGpt2;
  const uint64_t d = 24, ff = 48, experts = 6, w = 16, layers = 2, vocab = 61;
  const uint64_t prompt = 9, output = 4, tokens = prompt + output - 1;
  const uint64_t kv = gpt2 ? 24 : 12, matrices = gpt2 ? 2 : 3;
  Call call = Ask(*model, prompt, 1, 0);
  call.max_new_tokens = output;
  const uint64_t fixed =
      layers * (tokens * 2 * d * (2 * d + 2 * kv) + tokens * (tokens + 1) / 2 * 4 * d) +
      output * 2 * d * vocab;
  const Answer dense = RunCall(*model, call);
  EXPECT_EQ(dense.usage.flops, fixed + layers * tokens * matrices * 2 * d * ff);
  EXPECT_EQ(dense.usage.dense_flops, dense.usage.flops);
  EXPECT_EQ(dense.usage.prompt_tokens, prompt);
  EXPECT_EQ(dense.usage.output_tokens, output);
  call.plan = TauPlan(*model, 1);
  const Answer least = RunCall(*model, call);
  EXPECT_EQ(
      least.usage.flops,
      fixed + layers * tokens * (2 * (d * w + w * experts) + matrices * 2 * d * (ff / experts)));
  EXPECT_EQ(least.usage.tau, 1);
  EXPECT_EQ(least.usage.dense_flops, dense.usage.flops);
  ASSERT_EQ(least.usage.layers.size(), layers);
  EXPECT_EQ(least.usage.layers[1].expert_runs, tokens);
  // A scoring's last token is not computed; each other one runs the head.
  call.task = Task::kScoring;
  call.plan = TauPlan(*model, 0);
  const uint64_t scored = prompt - 1;
  EXPECT_EQ(RunCall(*model, call).usage.flops,
            layers * (scored * 2 * d * (2 * d + 2 * kv) + scored * (scored + 1) / 2 * 4 * d +
                      scored * matrices * 2 * d * ff) +
                scored * 2 * d * vocab);
}

TEST_P(Decoders, MaxFlopsIsNeverExceeded) {
  TestDecoder decoder = plain_.Converted();
  decoder.hidden = 240;  // most of the work
  decoder.experts = 10;
  const auto model = Load(decoder);
  size_t refused = 0, cut_short = 0, whole = 0, failed = 0;
  for (const double max_tau : {1.0, 0.2}) {
    for (size_t tokens : {1, 5, 64, 100}) {
      const Call base = Ask(tokens, 4, 20);
      const Answer dense = RunCall(*model, base);
      for (double share = 0.15; share < 1.1; share += 0.05) {
        Call call = base;
        const auto most = static_cast<uint64_t>(share * double(dense.usage.flops));
        const auto plan =
            PlanGeneration({Budget::Kind::kMaxFlops, 0, most}, {.max_tau = max_tau},
                           model->info().cost, {.prompt_tokens = tokens, .max_new_tokens = 20});
        if (!plan.ok()) {
          EXPECT_EQ(plan.status().code(), absl::StatusCode::kFailedPrecondition);
          ++refused;
          continue;
        }
        call.plan = *plan;
        const Answer got = RunCall(*model, call);
        EXPECT_LE(got.usage.flops, most) << share;
        if (!got.status.ok()) {  // the operator's max_tau leaves no answer
          EXPECT_EQ(got.status.code(), absl::StatusCode::kFailedPrecondition);
          EXPECT_LT(max_tau, 1);
          ++failed;
        } else if (got.finish_reason == FinishReason::kBudget) {
          EXPECT_LT(got.output.size(), 20u);
          EXPECT_GE(got.output.size(), 1u);
          ++cut_short;
        } else {
          EXPECT_EQ(got.finish_reason, FinishReason::kLength);
          ++whole;
        }
      }
    }
  }
  EXPECT_GT(refused, 0u);
  EXPECT_GT(cut_short, 0u);
  EXPECT_GT(whole, 10u);
  EXPECT_GT(failed, 0u);
}

TEST_P(Decoders, FinishReasons) {
  const auto model = Load(plain_);
  const Call call = Ask(10, 5, 12);
  const Answer whole = RunCall(*model, call);
  EXPECT_EQ(whole.finish_reason, FinishReason::kLength);
  ASSERT_EQ(whole.output.size(), 12u);

  KvPool pool(model->info().kv, 4);
  Flight flight(call, pool);
  flight.sink.stop_after = 3;
  Worker worker;
  for (int step = 0; step < 20 && !flight.sequence.finished; ++step) {
    worker.Step(*model, {&flight.sequence});
  }
  EXPECT_EQ(flight.answer().finish_reason, FinishReason::kStop);
  EXPECT_EQ(flight.answer().usage.output_tokens, 3u);

  // One of its tokens, where it first comes, now ends a text; it is not shown.
  TestDecoder ending = plain_;
  const auto end = std::find(whole.output.begin(), whole.output.end(), whole.output[6]);
  ending.end_ids = {60, *end};
  if (*end == 60) ending.end_ids = 60;
  const Answer ended = RunCall(*Load(ending), call);
  EXPECT_EQ(ended.finish_reason, FinishReason::kEndOfText);
  EXPECT_EQ(ended.output, std::vector<int32_t>(whole.output.begin(), end));
}

TEST_P(Decoders, CancelledAndLateSequencesLeaveTheOthersAlone) {
  const auto model = Load(plain_.Converted());
  std::vector<Call> calls;
  for (uint32_t i = 0; i < 4; ++i) calls.push_back(Ask(*model, 30 * (i + 1), i, 0.3));
  KvPool pool(model->info().kv, 64);
  std::vector<std::unique_ptr<Flight>> flights;
  std::vector<Sequence*> batch;
  for (const Call& call : calls) {
    flights.push_back(std::make_unique<Flight>(call, pool));
    batch.push_back(&flights.back()->sequence);
  }
  std::atomic<bool> cancelled = false;
  batch[0]->cancelled = &cancelled;
  Worker worker;
  for (int step = 0; step < 30; ++step) {
    if (step == 3) cancelled = true;
    if (step == 1) batch[2]->deadline = std::chrono::steady_clock::now();
    worker.Step(*model, batch);
  }
  EXPECT_EQ(batch[0]->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(flights[0]->sink.ids.size(), 3u);
  EXPECT_EQ(batch[2]->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(flights[2]->sink.ids.size(), 0u);
  EXPECT_EQ(flights[1]->answer(), RunCall(*model, calls[1]));
  EXPECT_EQ(flights[3]->answer(), RunCall(*model, calls[3]));
}

// Prompts wait for one another, first come first served; streams do not wait for them.
TEST_P(Decoders, PromptsRunInChunksBesideStreams) {
  const auto model = Load(plain_);
  KvPool pool(model->info().kv, 64);
  Flight stream(Ask(5, 1, 40), pool), first(Ask(150, 2, 2), pool), second(Ask(70, 3, 2), pool);
  Worker worker(1, 64);
  worker.Step(*model, {&stream.sequence});
  const std::vector<Sequence*> batch = {&stream.sequence, &first.sequence, &second.sequence};
  std::vector<uint64_t> prompt_rows;
  for (int step = 0; step < 8; ++step) {
    const StepStats stats = worker.Step(*model, batch);
    prompt_rows.push_back(stats.prompt_tokens);
    EXPECT_EQ(stream.sink.ids.size(), size_t(step) + 2);
  }
  // 64 + 64 + 22 of the first, whose last chunk leaves no room for 64 more; 64 + 6 of the second.
  EXPECT_EQ(prompt_rows, (std::vector<uint64_t>{64, 64, 22, 64, 6, 0, 0, 0}));
  EXPECT_TRUE(first.sequence.finished);
  EXPECT_TRUE(second.sequence.finished);
}

TEST_P(Decoders, StatsAddUpToWhatRan) {
  const auto model = Load(plain_.Converted());
  KvPool pool(model->info().kv, 64);
  Flight a(Ask(*model, 70, 1, 0), pool), b(Ask(*model, 20, 2, 0.5), pool);
  Worker worker(2);
  uint64_t tokens = 0, prompt = 0, output = 0, pairs[2] = {};
  while (!a.sequence.finished || !b.sequence.finished) {
    const StepStats stats = worker.Step(*model, {&a.sequence, &b.sequence});
    tokens += stats.tokens;
    prompt += stats.prompt_tokens;
    output += stats.output_tokens;
    ASSERT_EQ(stats.modules.size(), 2u);
    for (size_t m = 0; m < 2; ++m) {
      uint64_t routed = 0;
      for (uint64_t count : stats.modules[m].expert_tokens) pairs[m] += count;
      for (uint64_t count : stats.modules[m].experts_per_token) routed += count;
      EXPECT_EQ(routed, stats.tokens);
    }
  }
  EXPECT_EQ(tokens, 70u + 20 + 2 * 7);
  EXPECT_EQ(prompt, 90u);
  EXPECT_EQ(output, 16u);
  for (size_t m = 0; m < 2; ++m) {
    EXPECT_EQ(pairs[m],
              a.sequence.usage.layers[m].expert_runs + b.sequence.usage.layers[m].expert_runs);
  }
}

}  // namespace
}  // namespace dimmer
