// Generation through the whole engine, with a real GPT-2 (of random weights).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "engine/layers/kv_cache.h"
#include "tests/engine/engine_fixture.h"
#include "tests/engine/small_gpt2.h"

namespace dimmer {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// What a reader got, and whether it wants more.
struct Reader {
  std::mutex mutex;
  std::condition_variable changed;
  std::string text;
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  size_t pieces = 0;
  size_t room = 0;  // pieces until it is full; 0: never

  bool Take(Piece piece) {
    std::lock_guard lock(mutex);
    text += piece.text;
    ids.insert(ids.end(), piece.ids.begin(), piece.ids.end());
    logprobs.insert(logprobs.end(), piece.logprobs.begin(), piece.logprobs.end());
    ++pieces;
    changed.notify_all();
    return room == 0 || pieces % room != 0;
  }
  void Await(size_t count) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return pieces >= count; });
  }
  size_t count() {
    std::lock_guard lock(mutex);
    return pieces;
  }
};

class GenerateTest : public EngineTest {
 protected:
  void StartGpt2(EngineOptions options = {.threads = 2, .workers = 1}, SmallGpt2 gpt2 = {},
                 uint32_t kv_cache_tokens = 0) {
    Start(std::move(options));
    RepositoryEntry entry{.model = "gpt2",
                          .version = "1",
                          .directory = temp_.Sub("gpt2/1"),
                          .serving = {.kv_cache_tokens = kv_cache_tokens},
                          .status = {}};
    gpt2.Write(entry.directory);
    const absl::Status status = engine_->Load(entry);
    ASSERT_TRUE(status.ok()) << status;
  }
  static Request Prompt(const std::string& text, uint32_t max_tokens, Sampling sampling = {},
                        Budget budget = {}) {
    return {.model = "gpt2",
            .task = Task::kGeneration,
            .texts = {text},
            .budget = budget,
            .generate = GenerateOptions{.max_tokens = max_tokens, .sampling = sampling}};
  }
  static Request Streamed(Request request, const std::shared_ptr<Reader>& reader) {
    request.on_piece = [reader](Piece piece) { return reader->Take(std::move(piece)); };
    return request;
  }
  Result Generate(Request request) {
    Response response = Ask(std::move(request));
    EXPECT_TRUE(response.status.ok()) << response.status;
    if (response.results.size() != 1) return {};
    return std::move(response.results[0]);
  }
  const KvPool& pool() { return *(*engine_->Find("gpt2", ""))->kv; }
  double Share(const Usage& usage) { return double(usage.flops) / double(usage.dense_flops); }
};

TEST_F(GenerateTest, PiecesAddUpToTheAnswer) {
  StartGpt2();
  const auto reader = std::make_shared<Reader>();
  const Sampling sampling{.temperature = 1, .seed = 42};
  const Result result = Generate(Streamed(Prompt("Once upon a time", 60, sampling), reader));
  EXPECT_EQ(result.output_ids.size(), 60u);
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(result.seed, 42u);
  EXPECT_EQ(reader->text, result.text);
  EXPECT_EQ(reader->ids, result.output_ids);
  EXPECT_EQ(reader->logprobs, result.logprobs);
  EXPECT_GT(reader->pieces, 1u);
  EXPECT_EQ(result.usage.prompt_tokens, 16u);
  EXPECT_EQ(result.usage.output_tokens, 60u);
  EXPECT_EQ(result.usage.flops, result.usage.dense_flops);
  EXPECT_GT(result.first_token_us, 0u);
  EXPECT_LE(result.first_token_us, result.last_token_us);
  EXPECT_EQ(Generate(Prompt("Once upon a time", 60, sampling)).text, result.text);
  EXPECT_EQ(pool().free_pages(), pool().pages());
}

TEST_F(GenerateTest, AStopStringEndsTheText) {
  StartGpt2();
  const Result whole = Generate(Prompt("abc", 80));
  // Three bytes of it that are whole characters.
  size_t at = 5;
  const auto plain = [&](size_t i) { return (whole.text[i] & 0x80) == 0; };
  while (at + 3 < whole.text.size() && !(plain(at) && plain(at + 1) && plain(at + 2))) ++at;
  ASSERT_LT(at + 3, whole.text.size());
  Request request = Prompt("abc", 80);
  request.generate->stop = {whole.text.substr(at, 3)};
  const Result stopped = Generate(std::move(request));
  EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(whole.text.substr(at, 3))));
  EXPECT_LT(stopped.output_ids.size(), 80u);
}

// What a stop string holds back is not lost with the deadline, nor is it counted for nothing.
TEST_F(GenerateTest, ALateTextIsHandedOutAsFarAsItCame) {
  StartGpt2();
  const std::string whole = Generate(Prompt("abc", 1500)).text;
  size_t start = 5;  // of a character
  while ((whole.at(start) & 0xc0) == 0x80) ++start;
  size_t end = std::min(start + kMaxStopBytes, whole.size());
  while (end < whole.size() && (whole[end] & 0xc0) == 0x80) --end;
  bool seen = false;
  for (int patience = 1; patience < 2000 && !seen; ++patience) {
    const auto reader = std::make_shared<Reader>();
    Request request = Streamed(Prompt("abc", 1500), reader);
    request.generate->stop = {whole.substr(start, end - start)};
    request.deadline = Clock::now() + std::chrono::microseconds(100) * (patience % 500);
    const Response response = Ask(std::move(request));
    EXPECT_TRUE(whole.starts_with(reader->text));
    if (response.status.code() != StatusCode::kDeadlineExceeded) continue;
    EXPECT_TRUE(response.results.empty());
    EXPECT_EQ(response.usage.output_tokens, reader->ids.size());
    EXPECT_EQ(response.usage.flops > 0, response.usage.prompt_tokens > 0);
    seen = reader->text.size() > start;
  }
  EXPECT_TRUE(seen);
}

TEST_F(GenerateTest, AFullReaderPausesItsOwnGeneration) {
  StartGpt2();
  const auto slow = std::make_shared<Reader>();
  slow->room = 3;
  Pending paused = Submit(*engine_, Streamed(Prompt("slow", 40), slow));
  slow->Await(3);
  const Result other = Generate(Prompt("fast", 200));
  EXPECT_EQ(other.output_ids.size(), 200u);
  EXPECT_EQ(slow->count(), 3u);
  std::atomic<bool> over = false;
  std::thread resumer([&] {
    while (!over) paused.ticket.Resume();
  });
  const Response response = paused.response.get();
  over = true;
  resumer.join();
  ASSERT_TRUE(response.status.ok()) << response.status;
  EXPECT_EQ(response.results[0].text, Generate(Prompt("slow", 40)).text);
  EXPECT_EQ(slow->text, response.results[0].text);
}

TEST_F(GenerateTest, CancellationFreesThePages) {
  StartGpt2();
  const auto reader = std::make_shared<Reader>();
  reader->room = 5;
  Pending pending = Submit(*engine_, Streamed(Prompt("long", 2000), reader));
  reader->Await(5);
  EXPECT_EQ(pool().free_pages(), pool().pages() - KvPool::PagesFor(2004));
  pending.ticket.Cancel();
  EXPECT_EQ(pending.Await().status.code(), StatusCode::kCancelled);
  EXPECT_EQ(pool().free_pages(), pool().pages());
  pending.ticket.Resume();  // harmless
}

TEST_F(GenerateTest, AClassifierIsAnsweredWhileStreamsRun) {
  StartGpt2();
  Load(Converted(), "bert");
  std::vector<Pending> streams;
  for (int i = 0; i < 3; ++i) streams.push_back(Submit(*engine_, Prompt("endless", 2000)));
  for (int i = 0; i < 5; ++i) {
    const Response response = Ask({.model = "bert", .texts = {"abc"}});
    EXPECT_TRUE(response.status.ok()) << response.status;
  }
  for (Pending& stream : streams) stream.ticket.Cancel();
  for (Pending& stream : streams) (void)stream.Await();
}

TEST_F(GenerateTest, BudgetsHoldOverTime) {
  StartGpt2();
  const Sampling sampling{.temperature = 1, .seed = 7};
  const CostModel& cost = (*engine_->Find("gpt2", ""))->model->info().cost;
  const GenerationSize size{.prompt_tokens = 20, .max_new_tokens = 200};
  const std::string prompt(20, 'x');
  for (const double asked : {0.75, 0.85, 0.95}) {
    const Result result = Generate(
        Prompt(prompt, 200, sampling, {.kind = Budget::Kind::kFlopFraction, .value = asked}));
    EXPECT_NEAR(Share(result.usage) / asked, 1, 0.01) << asked;
    EXPECT_EQ(result.usage.dense_flops, cost.DenseFlops(size.All()));
    EXPECT_FALSE(result.usage.budget_clamped);
  }
  for (const uint64_t share : {3, 6, 9}) {
    const uint64_t max_flops = cost.DenseFlops(size.All()) * share / 10;
    const Result result = Generate(
        Prompt(prompt, 200, sampling, {.kind = Budget::Kind::kMaxFlops, .max_flops = max_flops}));
    EXPECT_LE(result.usage.flops, max_flops);
    EXPECT_GE(result.output_ids.size(), 1u);
    EXPECT_EQ(result.finish_reason == FinishReason::kBudget, result.output_ids.size() < 200);
    if (share == 3) {
      EXPECT_EQ(result.finish_reason, FinishReason::kBudget);
    }
  }
  const Response refused =
      Ask(Prompt(prompt, 200, sampling, {.kind = Budget::Kind::kMaxFlops, .max_flops = 1000}));
  EXPECT_EQ(refused.status.code(), StatusCode::kFailedPrecondition);
}

TEST_F(GenerateTest, ScoringGivesTheLogProbabilitiesOfTheGeneration) {
  StartGpt2();
  const Result generated = Generate(Prompt("score this", 70));
  Request request{.model = "gpt2", .task = Task::kScoring, .token_ids = {{}}};
  for (const char c : std::string("score this")) request.token_ids[0].push_back(c);
  const size_t prompt = request.token_ids[0].size();
  request.token_ids[0].insert(request.token_ids[0].end(), generated.output_ids.begin(),
                              generated.output_ids.end());
  const Result scored = Generate(std::move(request));
  ASSERT_EQ(scored.logprobs.size(), prompt + 70 - 1);
  for (size_t i = 0; i < 70; ++i) {
    EXPECT_NEAR(scored.logprobs[prompt - 1 + i], generated.logprobs[i], 1e-4) << i;
  }
  EXPECT_EQ(pool().free_pages(), pool().pages());
}

TEST_F(GenerateTest, ASmallCacheMakesRequestsWaitOrRefusesThem) {
  StartGpt2({.threads = 2, .workers = 1}, {}, /*kv_cache_tokens=*/320);
  EXPECT_EQ(pool().pages(), 20u);
  const Response large = Ask(Prompt("abcd", 318));
  EXPECT_EQ(large.status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(large.status.message()), HasSubstr("need 21 pages"));
  std::vector<Pending> pending;
  for (int i = 0; i < 10; ++i) pending.push_back(Submit(*engine_, Prompt("abcd", 150)));
  for (Pending& one : pending) EXPECT_TRUE(one.Await().status.ok());
  EXPECT_EQ(pool().free_pages(), 20u);
}

Request RandomRequest(std::mt19937& random) {
  Request request{.model = "gpt2", .task = Task::kGeneration, .token_ids = {{}}};
  for (size_t i = 1 + random() % 150; i > 0; --i) {
    request.token_ids[0].push_back(int32_t(random() % 256));
  }
  GenerateOptions options{.max_tokens = uint32_t(1 + random() % 60)};
  if (random() % 2 == 0) {
    options.sampling = {.temperature = 0.8f, .top_k = 40, .top_p = 0.9f, .seed = 1 + random()};
  }
  request.generate = options;
  switch (random() % 4) {
    case 0:
      request.budget = {.kind = Budget::Kind::kTau, .value = double(random() % 10) / 10};
      break;
    case 1:
      request.budget = {.kind = Budget::Kind::kFlopFraction, .value = 0.7};
      break;
    case 2:
      request.budget = {.kind = Budget::Kind::kMaxFlops, .max_flops = 20'000'000};
      break;
    default:
      break;
  }
  return request;
}

// Random joins, cancels and slow readers: what is answered is, to the bit, what the request gets
// alone.
TEST_F(GenerateTest, SixtyFourStreamsGetTheBitsThatTheyGetAlone) {
  StartGpt2({.threads = 2, .workers = 2}, {}, /*kv_cache_tokens=*/4000);
  std::mt19937 random(5);
  std::vector<Request> requests;
  std::vector<std::shared_ptr<Reader>> readers;
  for (int i = 0; i < 64; ++i) {
    requests.push_back(RandomRequest(random));
    readers.push_back(std::make_shared<Reader>());
    if (random() % 3 == 0) readers.back()->room = 1 + random() % 5;
  }
  std::vector<Response> alone;
  for (const Request& request : requests) alone.push_back(Ask(request));

  std::vector<Pending> pending(requests.size());
  std::vector<bool> cancelled(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    pending[i] = Submit(*engine_, Streamed(requests[i], readers[i]));
    if (random() % 6 == 0) {
      const size_t victim = random() % (i + 1);
      cancelled[victim] = true;
      pending[victim].ticket.Cancel();
    }
  }
  std::atomic<bool> over = false;
  std::thread resumer([&] {
    while (!over) {
      for (Pending& one : pending) one.ticket.Resume();
    }
  });
  int answered = 0;
  for (size_t i = 0; i < pending.size(); ++i) {
    const Response response = pending[i].Await();
    if (cancelled[i] && !response.status.ok()) continue;
    ASSERT_EQ(response.status, alone[i].status) << i;
    if (!response.status.ok()) continue;
    ++answered;
    const Result& got = response.results.at(0);
    const Result& want = alone[i].results.at(0);
    EXPECT_EQ(got.output_ids, want.output_ids) << i;
    EXPECT_EQ(got.logprobs, want.logprobs) << i;
    EXPECT_EQ(got.text, want.text) << i;
    EXPECT_EQ(got.finish_reason, want.finish_reason) << i;
    EXPECT_EQ(got.usage.flops, want.usage.flops) << i;
    EXPECT_EQ(got.usage.tau, want.usage.tau) << i;
    EXPECT_EQ(readers[i]->ids, want.output_ids) << i;
  }
  over = true;
  resumer.join();
  EXPECT_GT(answered, 30);
  EXPECT_EQ(pool().free_pages(), pool().pages());
}

}  // namespace
}  // namespace dimmer
