#include "server/ctl/top_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dimmer::ctl {
namespace {

using testing::HasSubstr;
using testing::Not;

ModelWindow Busy(const std::string& name = "emotion") {
  ModelWindow window;
  v1::ModelStats& now = window.now;
  now.set_model(name);
  now.set_version("1");
  now.set_ready(true);
  now.set_converted(true);
  now.set_queued(3);
  now.set_running(8);
  now.mutable_settings()->set_default_tau(0.05);
  now.mutable_settings()->set_max_tau(1);
  window.seconds = 1;
  window.requests = 182.4;
  window.texts = 729.6;
  window.tokens = 14592;
  window.flops = 12.3e9;
  window.dense_flops = 26e9;
  window.tau = 0.052;
  window.saved = 0.527;
  window.p50 = 0.0041;
  window.p95 = 0.009;
  window.p99 = 0.0122;
  window.modules = {{.layer = 0, .module = "ffn", .experts = 96, .run = 48},
                    {.layer = 5, .module = "ffn", .experts = 96, .run = 12}};
  return window;
}

TopFrame Frame(std::vector<ModelWindow> windows) {
  TopFrame frame{.address = "127.0.0.1:8003", .now = {}, .windows = std::move(windows)};
  frame.now.mutable_time()->set_seconds(45296);  // 12:34:56
  frame.now.set_uptime_seconds(8053);
  return frame;
}

std::string Repeat(const std::string& text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

std::string Render(const TopFrame& frame, const TopShape& shape) {
  TopHistory history;
  history.Add(frame.windows);
  return Paint(RenderTop(frame, history, shape), false);
}

TEST(TopViewTest, AFrame) {
  EXPECT_EQ(
      Render(Frame({Busy()}), {.columns = 100}),
      std::string(
          "dimmerctl top  127.0.0.1:8003  up 2h14m"
          "                                                 12:34:56 UTC\n"
          "\n"
          "● emotion  version 1\n"
          "  requests         182.4 /s   █                         729.6 texts/s, 14.6 k tokens/s\n"
          "  errors             0.0 /s\n"
          "  latency         4.1 ms p50  █                         9.0 ms p95, 12.2 ms p99\n"
          "  queue                3      texts waiting, 8 in the model\n"
          "  tau              0.052      █                         default 0.05 in [0, 1]\n"
          "  FLOPs saved       52.7 %    ▅                         12.3 GFLOP/s run, 26.0 GFLOP/s "
          "dense\n"
          "\n"
          "  experts run per token, by layer\n"
          "    0 ffn    48.0 of 96     50%  ") +
          Repeat("█", 32) + Repeat("·", 32) + "\n    5 ffn    12.0 of 96     12%  " +
          Repeat("█", 8) + Repeat("·", 56) + "\n");
}

TEST(TopViewTest, AsciiAndNarrow) {
  EXPECT_EQ(Render(Frame({Busy()}), {.columns = 40, .unicode = false}),
            "dimmerctl top  127.0.0.1:8003  up 2h14m\n"
            "\n"
            "* emotion  version 1\n"
            "  requests         182.4 /s\n"
            "  errors             0.0 /s\n"
            "  latency         4.1 ms p50\n"
            "  queue                3\n"
            "  tau              0.052\n"
            "  FLOPs saved       52.7 %\n"
            "\n"
            "  experts run per token, by layer\n"
            "    0 ffn    48.0 of 96\n"
            "    5 ffn    12.0 of 96\n");
}

TEST(TopViewTest, NoLineIsWiderThanTheTerminalAndNoFrameHigher) {
  ModelWindow long_name = Busy(std::string(300, 'x'));
  long_name.now.mutable_settings()->mutable_expires()->set_seconds(50000);
  const TopFrame frame = Frame({Busy(), long_name, Busy("third")});
  TopHistory history;
  for (int i = 0; i < 100; ++i) history.Add(frame.windows);
  for (const bool unicode : {true, false}) {
    for (size_t columns = 1; columns < 220; ++columns) {
      for (const size_t rows : {size_t{0}, size_t{1}, size_t{5}, size_t{24}, size_t{200}}) {
        const auto lines = RenderTop(frame, history, {columns, rows, unicode});
        if (rows > 0) {
          ASSERT_LE(lines.size(), rows);
        }
        for (const Line& line : lines) ASSERT_LE(Width(line), columns) << Paint(line, false);
      }
    }
  }
}

TEST(TopViewTest, SaysWhatIsHidden) {
  EXPECT_THAT(Render(Frame({Busy()}), {.columns = 100, .rows = 5}),
              HasSubstr("\n9 more lines: name one model"));
}

TEST(TopViewTest, WhatIsNotKnownIsNotMadeUp) {
  ModelWindow idle = Busy();
  idle.tau = idle.saved = idle.p50 = idle.p95 = idle.p99 = std::nullopt;
  for (auto& module : idle.modules) module.run = std::nullopt;
  const std::string text = Render(Frame({idle}), {});
  EXPECT_THAT(text, HasSubstr("  tau                  -  "));
  EXPECT_THAT(text, HasSubstr("- p95, - p99"));
  EXPECT_THAT(text, HasSubstr("    0 ffn       - of 96          ··········"));
  EXPECT_THAT(Render(Frame({}), {}), HasSubstr("no models"));
}

TEST(TopViewTest, SettingsThatExpireAndLayersApart) {
  ModelWindow window = Busy();
  window.now.mutable_settings()->mutable_expires()->set_seconds(45296 + 570);
  window.now.mutable_settings()->add_layers()->set_tau(1);
  EXPECT_THAT(Render(Frame({window}), {.columns = 130}),
              HasSubstr("default 0.05 in [0, 1], 1 layer apart, for 9m30s more"));
}

TEST(TopViewTest, OtherModels) {
  ModelWindow plain = Busy("plain");
  plain.now.set_converted(false);
  plain.modules.clear();
  ModelWindow broken;
  broken.now.set_model("broken\033[2J");
  const std::string text = Render(Frame({plain, broken}), {});
  EXPECT_THAT(text, HasSubstr("not converted: always dense"));
  EXPECT_THAT(text, Not(HasSubstr("FLOPs saved")));
  EXPECT_THAT(text, HasSubstr("broken?[2J"));
  EXPECT_THAT(text, HasSubstr("not ready"));
}

}  // namespace
}  // namespace dimmer::ctl
