// WatchStats over a real connection: what it says, what it refuses, and every way it ends.
#include "server/watch_stats.h"

#include <thread>

#include "engine/util/status.h"
#include "tests/server/server_fixture.h"

namespace dimmer {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

struct IntervalCase {
  int64_t seconds;
  int32_t nanos;
  int64_t expected_ms;  // 0: refused
};

TEST(StatsIntervalTest, IsBounded) {
  for (const IntervalCase& c : {IntervalCase{0, 0, 1000},
                                {0, 100'000'000, 100},
                                {2, 500'000'000, 2500},
                                {60, 0, 60'000},
                                {0, 99'999'999, 0},
                                {60, 1, 0},
                                {-1, 0, 0},
                                {1, -1, 0},
                                {0, 1'000'000'000, 0},
                                {INT64_MAX, 999'999'999, 0}}) {
    v1::WatchStatsRequest request;
    request.mutable_interval()->set_seconds(c.seconds);
    request.mutable_interval()->set_nanos(c.nanos);
    const auto interval = StatsInterval(request);
    ASSERT_EQ(interval.ok(), c.expected_ms > 0) << c.seconds << " s " << c.nanos << " ns";
    if (interval.ok()) {
      EXPECT_EQ(*interval, std::chrono::milliseconds(c.expected_ms));
    } else {
      EXPECT_THAT(std::string(Message(interval.status())), HasSubstr("interval: found"));
    }
  }
}

class WatchStatsTest : public ServerTest {
 protected:
  using Reader = std::unique_ptr<grpc::ClientReader<v1::WatchStatsResponse>>;

  Reader Watch(grpc::ClientContext* context, const std::string& model = "", int millis = 100) {
    v1::WatchStatsRequest request;
    request.set_model(model);
    request.mutable_interval()->set_seconds(millis / 1000);
    request.mutable_interval()->set_nanos(millis % 1000 * 1'000'000);
    return admin_->WatchStats(context, request);
  }

  // The status of a stream that must not bring a message.
  grpc::Status Refused(const std::string& model, int millis) {
    grpc::ClientContext context;
    const Reader reader = Watch(&context, model, millis);
    v1::WatchStatsResponse stats;
    EXPECT_FALSE(reader->Read(&stats));
    return reader->Finish();
  }
};

TEST_F(WatchStatsTest, CountsWhatWasAnswered) {
  Add(Converted(), "tiny");
  Add(Converted(), "other");
  Start();
  grpc::ClientContext context;
  const Reader reader = Watch(&context, "tiny");
  v1::WatchStatsResponse before;
  ASSERT_TRUE(reader->Read(&before));
  ASSERT_EQ(before.models_size(), 1);
  EXPECT_EQ(before.models(0).model(), "tiny");
  EXPECT_TRUE(before.models(0).ready());
  EXPECT_TRUE(before.models(0).converted());
  EXPECT_EQ(before.models(0).settings().default_tau(), 0.25);
  EXPECT_EQ(before.models(0).answers(), 0u);

  v1::ClassifyRequest request = Text("a b");
  request.add_texts("b");
  v1::ClassifyResponse answer;
  ASSERT_TRUE(Classify(request, &answer).ok());
  request.mutable_budget()->set_tau(7);
  EXPECT_FALSE(Classify(request).ok());
  ASSERT_TRUE(Classify(Text("a", "other")).ok());  // not counted here

  v1::WatchStatsResponse now;
  do {
    ASSERT_TRUE(reader->Read(&now));
  } while (now.models(0).answers() == 0);
  const v1::ModelStats& stats = now.models(0);
  EXPECT_GT(now.uptime_seconds(), before.uptime_seconds());
  EXPECT_EQ(stats.answers(), 1u);
  EXPECT_EQ(stats.texts(), 2u);
  EXPECT_EQ(stats.requests().at("OK"), 1u);
  EXPECT_EQ(stats.requests().at("INVALID_ARGUMENT"), 1u);
  EXPECT_EQ(stats.tokens(), answer.usage().prompt_tokens());
  EXPECT_EQ(stats.flops(), answer.usage().flops());
  EXPECT_EQ(stats.dense_flops(), answer.usage().dense_flops());
  EXPECT_DOUBLE_EQ(stats.tau_sum(), answer.usage().tau());
  uint64_t timed = 0;
  for (const uint64_t count : stats.request_seconds().counts()) timed += count;
  EXPECT_EQ(timed, 2u);
  EXPECT_EQ(stats.request_seconds().counts_size(), stats.request_seconds().upper_bounds_size() + 1);
  ASSERT_EQ(stats.modules_size(), answer.usage().layers_size());
  for (int i = 0; i < stats.modules_size(); ++i) {
    const v1::ModuleStats& module = stats.modules(i);
    const v1::LayerUsage& layer = answer.usage().layers(i);
    EXPECT_EQ(module.layer(), layer.layer());
    EXPECT_EQ(module.experts(), layer.experts());
    EXPECT_EQ(module.tokens(), answer.usage().prompt_tokens());
    EXPECT_DOUBLE_EQ(double(module.expert_runs()), layer.experts_run() * double(module.tokens()));
  }
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
}

TEST_F(WatchStatsTest, RefusesWithTheReason) {
  Add(Converted(), "tiny");
  Start();
  grpc::Status status = Refused("void", 100);
  EXPECT_EQ(status.error_code(), StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("void"));
  status = Refused("tiny", 99);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("interval"));
}

TEST_F(WatchStatsTest, StreamsAreBoundedAndComeFreeAgain) {
  Add(Converted(), "tiny");
  Start();
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<Reader> readers;
  v1::WatchStatsResponse stats;
  for (size_t i = 0; i < kMaxStatsWatchers; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(Watch(contexts.back().get(), "", 60'000));
    ASSERT_TRUE(readers.back()->Read(&stats)) << i;
  }
  EXPECT_EQ(Refused("", 100).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  // A stream that waits for its timer leaves at once when its client does.
  contexts[0]->TryCancel();
  EXPECT_EQ(readers[0]->Finish().error_code(), StatusCode::CANCELLED);
  bool open = false;
  while (!open) {  // until the server has seen it; the suite's limit ends a wait in vain
    grpc::ClientContext context;
    const Reader reader = Watch(&context, "", 60'000);
    open = reader->Read(&stats);
    context.TryCancel();
    reader->Finish();
  }
  for (size_t i = 1; i < readers.size(); ++i) {
    contexts[i]->TryCancel();
    readers[i]->Finish();
  }
}

TEST_F(WatchStatsTest, EndsWithTheDrainBeforeItsTimerIsOver) {
  Add(Converted(), "tiny");
  Start();
  grpc::ClientContext context;
  const Reader reader = Watch(&context, "", 60'000);
  v1::WatchStatsResponse stats;
  ASSERT_TRUE(reader->Read(&stats));
  std::thread stop([this] { EXPECT_TRUE(server_->Stop(std::chrono::seconds(600))); });
  EXPECT_FALSE(reader->Read(&stats));
  const grpc::Status status = reader->Finish();
  stop.join();
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "GRPC server is shutting down");
}

TEST_F(WatchStatsTest, ClientsThatComeAndGoDuringADrainLeaveNothingBehind) {
  Add(Converted(), "tiny");
  Start();
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([this, c] {
      bool served = true;
      for (int i = 0; served && i < 1000; ++i) {
        grpc::ClientContext context;
        const Reader reader = Watch(&context);
        v1::WatchStatsResponse stats;
        served = reader->Read(&stats);
        if ((i + c) % 2 == 0) served = served && reader->Read(&stats);
        context.TryCancel();
        reader->Finish();
      }
    });
  }
  EXPECT_TRUE(server_->Stop(std::chrono::seconds(600)));
  server_.reset();  // ASan sees a watcher that was left
  for (std::thread& client : clients) client.join();
}

}  // namespace
}  // namespace dimmer
