#include "server/ctl/top_stats.h"

#include <gtest/gtest.h>

namespace dimmer::ctl {
namespace {

struct QuantileCase {
  std::vector<uint64_t> counts;  // of buckets up to 1, 2, 4 and beyond
  double rank;
  std::optional<double> expected;
};

TEST(QuantileTest, AsPrometheusDoes) {
  for (const QuantileCase& c : {QuantileCase{{0, 0, 0, 0}, 0.5, std::nullopt},
                                {{4, 0, 0, 0}, 0.5, 0.5},
                                {{0, 4, 0, 0}, 0.5, 1.5},
                                {{1, 1, 2, 0}, 0.5, 2.0},
                                {{1, 1, 2, 0}, 0.75, 3.0},
                                {{1, 0, 0, 9}, 0.95, 4.0},  // beyond the last bound
                                {{0, 0, 5, 0}, 1.0, 4.0}}) {
    EXPECT_EQ(Quantile(c.rank, {1, 2, 4}, c.counts), c.expected);
  }
  EXPECT_EQ(Quantile(0.5, {}, {3}), std::nullopt);
}

v1::WatchStatsResponse Message(double uptime, uint64_t factor) {
  v1::WatchStatsResponse message;
  message.set_uptime_seconds(uptime);
  v1::ModelStats& model = *message.add_models();
  model.set_model("m");
  model.set_version("1");
  model.set_ready(true);
  (*model.mutable_requests())["OK"] = 10 * factor;
  (*model.mutable_requests())["CANCELLED"] = 2 * factor;
  model.set_answers(10 * factor);
  model.set_texts(40 * factor);
  model.set_tokens(400 * factor);
  model.set_flops(300 * factor);
  model.set_dense_flops(1000 * factor);
  model.set_tau_sum(2.5 * double(factor));
  for (double bound : {0.001, 0.01}) model.mutable_request_seconds()->add_upper_bounds(bound);
  for (uint64_t count : {6, 6, 0}) model.mutable_request_seconds()->add_counts(count * factor);
  v1::ModuleStats& module = *model.add_modules();
  module.set_module("ffn");
  module.set_experts(8);
  module.set_tokens(400 * factor);
  module.set_expert_runs(1000 * factor);
  return message;
}

TEST(WindowsTest, DifferencesPerSecond) {
  const auto windows = Windows(Message(10, 1), Message(12, 3));
  ASSERT_EQ(windows.size(), 1u);
  const ModelWindow& window = windows[0];
  EXPECT_EQ(window.seconds, 2);
  EXPECT_EQ(window.requests, 12);  // with errors
  EXPECT_EQ(window.errors, 2);
  EXPECT_EQ(window.texts, 40);
  EXPECT_EQ(window.tokens, 400);
  EXPECT_EQ(window.flops, 300);
  EXPECT_DOUBLE_EQ(*window.tau, 0.25);
  EXPECT_DOUBLE_EQ(*window.saved, 0.7);
  EXPECT_DOUBLE_EQ(*window.p50, 0.001);
  EXPECT_DOUBLE_EQ(*window.modules[0].run, 2.5);
}

TEST(WindowsTest, AnIdleIntervalSaysNothingOfTau) {
  const auto windows = Windows(Message(10, 1), Message(12, 1));
  EXPECT_EQ(windows[0].requests, 0);
  EXPECT_FALSE(windows[0].tau || windows[0].saved || windows[0].p50 || windows[0].modules[0].run);
}

TEST(WindowsTest, ANewModelCountsFromZero) {
  v1::WatchStatsResponse before;
  before.set_uptime_seconds(8);
  const auto windows = Windows(before, Message(10, 1));
  EXPECT_EQ(windows[0].requests, 6);
  EXPECT_EQ(Windows(Message(8, 2), before).size(), 0u);
}

TEST(WindowsTest, Json) {
  const v1::WatchStatsResponse now = Message(12, 3);
  const Json busy = ToJson(now, Windows(Message(10, 1), now));
  EXPECT_EQ(busy["models"][0]["requests_per_second"], 12);
  EXPECT_EQ(busy["models"][0]["layers"][0]["experts_run"], 2.5);
  const Json idle = ToJson(now, Windows(now, now));
  EXPECT_TRUE(idle["models"][0]["tau"].is_null());
  EXPECT_EQ(DumpLine(busy).find('\n'), DumpLine(busy).size() - 1);
}

}  // namespace
}  // namespace dimmer::ctl
