#include "server/ctl/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "engine/util/status.h"

namespace dimmer::ctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<CommandLine> Read(std::vector<const char*> words) {
  words.insert(words.begin(), "dimmerctl");
  return ReadCommandLine(static_cast<int>(words.size()), words.data());
}

TEST(CommandLineTest, SetTau) {
  const auto line = Read({"set-tau", "m", "--default", "0.2", "--max", "0.5", "--layer", "2=0.1",
                          "--layer", "3:ffn=0.25", "--ttl", "1h30m", "--if-revision", "7",
                          "--dry-run", "--json", "--admin-address", "host:1"});
  ASSERT_TRUE(line.ok()) << line.status();
  const Options& options = line->options;
  EXPECT_EQ(options.command, Options::Command::kSetTau);
  EXPECT_EQ(options.admin_address, "host:1");
  EXPECT_TRUE(options.json);
  const v1::SetTauRequest& request = options.set_tau;
  EXPECT_EQ(request.model(), "m");
  EXPECT_EQ(request.default_tau(), 0.2);
  EXPECT_FALSE(request.has_min_tau());
  EXPECT_EQ(request.max_tau(), 0.5);
  EXPECT_EQ(request.ttl().seconds(), 5400);
  EXPECT_EQ(request.if_revision(), 7u);
  EXPECT_TRUE(request.dry_run());
  ASSERT_EQ(request.layers_size(), 2);
  EXPECT_EQ(request.layers(0).layer(), 2u);
  EXPECT_EQ(request.layers(0).module(), "");
  EXPECT_EQ(request.layers(1).module(), "ffn");
  EXPECT_EQ(request.layers(1).tau(), 0.25);
}

TEST(CommandLineTest, Classify) {
  const auto line =
      Read({"classify", "m", "a text", "-", "--flop-fraction", "0.5", "--top-k", "2"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_THAT(line->options.texts, ElementsAre("a text", "-"));
  EXPECT_EQ(line->options.classify.budget().flop_fraction(), 0.5);
  EXPECT_EQ(line->options.classify.top_k(), 2u);
  EXPECT_FALSE(Read({"classify", "m", "a"})->options.classify.has_budget());
}

TEST(CommandLineTest, Generate) {
  const auto line = Read({"generate", "m", "Once upon", "--max-flops", "9000", "--max-tokens", "32",
                          "--temperature", "0.8", "--top-k", "40", "--top-p", "0.9", "--seed",
                          "18446744073709551615", "--stop", "The end", "--stop", "\n"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.command, Options::Command::kGenerate);
  const v1::GenerateRequest& request = line->options.generate;
  EXPECT_EQ(request.model(), "m");
  EXPECT_EQ(request.prompt(), "Once upon");
  EXPECT_EQ(request.budget().max_flops(), 9000u);
  EXPECT_EQ(request.max_tokens(), 32u);
  EXPECT_EQ(request.temperature(), 0.8F);
  EXPECT_EQ(request.top_k(), 40u);
  EXPECT_EQ(request.top_p(), 0.9F);
  EXPECT_EQ(request.seed(), UINT64_MAX);
  EXPECT_THAT(request.stop(), ElementsAre("The end", "\n"));
  const v1::GenerateRequest plain = Read({"generate", "m", ""})->options.generate;
  EXPECT_FALSE(plain.has_budget());
  EXPECT_EQ(plain.temperature(), 0);
  EXPECT_EQ(plain.max_tokens(), 0u);
}

TEST(CommandLineTest, Top) {
  const auto line = Read({"top", "--interval", "250ms", "--count", "3"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.interval, absl::Milliseconds(250));
  EXPECT_EQ(line->options.count, 3u);
  EXPECT_EQ(line->options.model, "");
}

TEST(CommandLineTest, AddressesComeFromTheEnvironmentUnlessAFlagSaysMore) {
  setenv("DIMMER_ADMIN_ADDRESS", "elsewhere:3", 1);
  setenv("DIMMER_GRPC_ADDRESS", "elsewhere:1", 1);
  const auto line = Read({"models", "--address", "here:1"});
  unsetenv("DIMMER_ADMIN_ADDRESS");
  unsetenv("DIMMER_GRPC_ADDRESS");
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->options.admin_address, "elsewhere:3");
  EXPECT_EQ(line->options.address, "here:1");
  EXPECT_EQ(Read({"models"})->options.admin_address, "127.0.0.1:8003");
}

TEST(CommandLineTest, HelpAndVersion) {
  EXPECT_THAT(*Read({"--help"})->print, HasSubstr("Examples:"));
  EXPECT_THAT(*Read({"set-tau", "--help"})->print, HasSubstr("--if-revision"));
  EXPECT_THAT(*Read({"--version"})->print, HasSubstr("dimmerctl 0."));
}

struct Bad {
  std::vector<const char*> words;
  const char* named;
};

TEST(CommandLineTest, SaysWhatIsWrong) {
  for (const Bad& bad : {Bad{{}, "found none, expected a command"},
                         {{"shine"}, "found \"shine\", expected a command"},
                         {{"models", "--colour"}, "colour"},
                         {{"describe"}, "MODEL"},
                         {{"set-tau", "m"}, "nothing to change"},
                         {{"set-tau", "m", "--default", "high"}, "high"},
                         {{"set-tau", "m", "--default", "0.1", "--ttl", "10"}, "--ttl"},
                         {{"set-tau", "m", "--default", "0.1", "--ttl", "-1s"}, "--ttl"},
                         {{"set-tau", "m", "--layer", "two=0.1"}, "two=0.1"},
                         {{"set-tau", "m", "--default", "0.1", "--if-revision", "0"}, "revision"},
                         {{"classify", "m"}, "TEXT"},
                         {{"classify", "m", "a", "--tau", "0", "--max-flops", "9"}, "tau"},
                         {{"generate", "m"}, "PROMPT"},
                         {{"generate", "m", "a", "--tau", "0", "--flop-fraction", "1"}, "tau"},
                         {{"generate", "m", "a", "--max-tokens", "-1"}, "max-tokens"},
                         {{"generate", "m", "a", "--seed", "new"}, "seed"},
                         {{"top", "--interval", "99ms"}, "--interval"},
                         {{"top", "--interval", "61s"}, "--interval"},
                         {{"models", "--color", "loud"}, "loud"},
                         {{"models", "--timeout", "soon"}, "soon"}}) {
    const auto line = Read(bad.words);
    ASSERT_FALSE(line.ok()) << bad.named;
    EXPECT_THAT(std::string(Message(line.status())), HasSubstr(bad.named));
  }
}

TEST(LayerTauTest, OnlyWhatIsWhole) {
  for (const char* text : {"", "2", "=0.1", "2=", "2:=0.1", "2:ffn", "-1=0.5", "2=0.5x"}) {
    EXPECT_FALSE(ParseLayerTau(text).ok()) << text;
  }
}

}  // namespace
}  // namespace dimmer::ctl
