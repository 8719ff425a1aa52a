#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <map>

#include "engine/util/status.h"

namespace dimmer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ConfigTest : public testing::Test {
 protected:
  absl::StatusOr<CommandLine> Read(std::vector<std::string> flags) {
    std::vector<const char*> argv = {"dimmer-server"};
    for (const std::string& flag : flags) argv.push_back(flag.c_str());
    return ReadConfig(static_cast<int>(argv.size()), argv.data(),
                      [this](const std::string& name) -> std::optional<std::string> {
                        const auto found = environment_.find(name);
                        if (found == environment_.end()) return std::nullopt;
                        return found->second;
                      });
  }

  // With a repository, so that nothing else is missing.
  absl::StatusOr<Config> ReadGood(std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"--model-repository", "models"});
    DIMMER_ASSIGN_OR_RETURN(CommandLine line, Read(flags));
    return line.config;
  }

  std::string File(const std::string& text) {
    const std::string path = testing::TempDir() + "/dimmer_config_test_" +
                             testing::UnitTest::GetInstance()->current_test_info()->name() +
                             ".yaml";
    std::ofstream(path) << text;
    return path;
  }

  std::map<std::string, std::string> environment_;
};

TEST_F(ConfigTest, DefaultsAreThoseOfTheTable) {
  const auto config = ReadGood({});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->grpc_port, 8001);
  EXPECT_EQ(config->http_port, 8000);
  EXPECT_EQ(config->metrics_port, 8002);
  EXPECT_EQ(config->admin_port, 8003);
  EXPECT_EQ(config->exit_timeout_secs, 30);
  EXPECT_EQ(config->log_format, "text");
  EXPECT_THAT(config->model_repository, ElementsAre("models"));
}

TEST_F(ConfigTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::string file = File(
      "grpc_port: 1\nhttp_port: 1\nmetrics_port: 1\nload_model: [a, b]\nlog_format: json\n"
      "model_control_mode: explicit\ngrpc_keepalive_permit_without_calls: true\n");
  environment_ = {{"DIMMER_GRPC_PORT", "2"}, {"DIMMER_HTTP_PORT", "2"}};
  const auto config = ReadGood({"--config", file, "--grpc-port=3"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->grpc_port, 3);
  EXPECT_EQ(config->http_port, 2);
  EXPECT_EQ(config->metrics_port, 1);
  EXPECT_EQ(config->admin_port, 8003);
  EXPECT_THAT(config->load_model, ElementsAre("a", "b"));
  EXPECT_EQ(config->log_format, "json");
  EXPECT_TRUE(config->grpc_keepalive_permit_without_calls);
}

TEST_F(ConfigTest, ListsRepeatAsFlagsAndHaveCommasInTheEnvironment) {
  environment_ = {{"DIMMER_LOAD_MODEL", "x,y"}};
  const auto line = Read(
      {"--model-repository", "a", "--model-repository", "b", "--model-control-mode", "explicit"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_THAT(line->config.model_repository, ElementsAre("a", "b"));
  EXPECT_THAT(line->config.load_model, ElementsAre("x", "y"));
}

TEST_F(ConfigTest, TheFileMayBeNamedInTheEnvironment) {
  environment_ = {{"DIMMER_CONFIG", File("threads: 5\n")}};
  const auto config = ReadGood({});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->threads, 5);
}

TEST_F(ConfigTest, VariablesThatAreNotOptionsAreNotOurs) {
  environment_ = {{"DIMMER_SERVICE_HOST", "10.0.0.1"}};  // Kubernetes, for a Service named dimmer
  EXPECT_TRUE(ReadGood({}).ok());
}

TEST_F(ConfigTest, AHealthCheckNeedsNoModels) {
  environment_ = {{"DIMMER_GRPC_PORT", "9001"}};
  const auto line = Read({"--health-check"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_TRUE(line->health_check);
  EXPECT_EQ(line->config.grpc_port, 9001);
  EXPECT_FALSE(Read({"--model-repository", "models"})->health_check);
  EXPECT_FALSE(Read({"--health-check", "--grpc-port", "x"}).ok());
}

struct BadFile {
  const char* text;
  std::vector<std::string> named;
};

TEST_F(ConfigTest, BadFilesAreNamedWithTheirLine) {
  const std::vector<BadFile> cases = {
      {"# first\ngrpc-prot: 1\n", {":2:", "grpc-prot"}},
      {"threads: many\n", {":1:", "threads", "many", "[0, 1024]"}},
      {"http_port: 80\ngrpc_port: 65536\n", {":2:", "grpc_port", "65536", "65535"}},
      {"grpc_port: -1\n", {":1:", "-1"}},
      {"grpc_port: [1, 2]\n", {":1:", "grpc_port"}},
      {"grpc_port: {a: 1}\n", {":1:", "a map"}},
      {"grpc_port:\n", {":1:", "nothing"}},
      {"log_format: xml\n", {":1:", "xml", "text, json"}},
      {"threads: 1\nthreads: 2\n", {":2:", "before"}},
      {"- threads\n", {":1:", "key: value"}},
      {"threads: [1, 2\n", {"not YAML"}},
      {"config: other.yaml\n", {":1:", "config"}},
      {"grpc_keepalive_permit_without_calls: perhaps\n", {":1:", "perhaps", "true or false"}},
  };
  for (const BadFile& bad : cases) {
    const std::string path = File(bad.text);
    const auto config = ReadGood({"--config", path});
    ASSERT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << bad.text;
    EXPECT_THAT(std::string(Message(config.status())), HasSubstr(path));
    for (const std::string& name : bad.named) {
      EXPECT_THAT(std::string(Message(config.status())), HasSubstr(name)) << bad.text;
    }
  }
}

TEST_F(ConfigTest, AnEmptyFileSetsNothing) {
  EXPECT_TRUE(ReadGood({"--config", File("")}).ok());
  EXPECT_TRUE(ReadGood({"--config", File("# only a comment\n")}).ok());
}

TEST_F(ConfigTest, FilesThatCannotBeReadAreNamed) {
  for (const std::string& path : {std::string("/no/such.yaml"), testing::TempDir()}) {
    const auto config = ReadGood({"--config", path});
    ASSERT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_THAT(std::string(Message(config.status())), HasSubstr(path));
  }
}

TEST_F(ConfigTest, BadFlagsAndVariablesAreNamed) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--grpc-port", "x"}, "flag --grpc-port: found \"x\", expected an integer in [0, 65535]"},
      {{"--grpc-port", "1.5"}, "--grpc-port"},
      {{"--grpc-port"}, "--grpc-port"},
      {{"--no-such-flag"}, "--no-such-flag"},
      {{"stray"}, "stray"},
      {{"--max-texts", "0"}, "--max-texts"},
      {{"--model-control-mode", "poll"}, "none, explicit"},
  };
  for (const auto& [flags, named] : cases) {
    const auto config = ReadGood(flags);
    ASSERT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << named;
    EXPECT_THAT(std::string(Message(config.status())), HasSubstr(named));
  }
  environment_ = {{"DIMMER_THREADS", "many"}};
  EXPECT_THAT(std::string(Message(ReadGood({}).status())),
              HasSubstr("environment variable DIMMER_THREADS: found \"many\""));
}

TEST_F(ConfigTest, ARepositoryIsNeeded) {
  EXPECT_THAT(std::string(Message(Read({}).status())), HasSubstr("--model-repository"));
}

TEST_F(ConfigTest, LoadModelNeedsTheExplicitMode) {
  EXPECT_THAT(std::string(Message(ReadGood({"--load-model", "a"}).status())),
              HasSubstr("--model-control-mode none, expected explicit"));
}

TEST_F(ConfigTest, HelpAndVersionPrint) {
  const auto help = Read({"--help"});
  ASSERT_TRUE(help.ok() && help->print.has_value());
  for (const OptionSpec& option : ConfigOptions()) {
    EXPECT_THAT(*help->print, HasSubstr(option.Flag() + " " + option.metavar));
    EXPECT_THAT(*help->print, HasSubstr(option.Default()));
  }
  const auto version = Read({"--version"});
  ASSERT_TRUE(version.ok() && version->print.has_value());
  EXPECT_EQ(*version->print, "dimmer-server " DIMMER_VERSION "\n");
}

// docs/server.md holds exactly one row for each option, with its names and default.
TEST_F(ConfigTest, TheDocumentedTableIsTheRealOne) {
  std::ifstream file(DIMMER_SOURCE_DIR "/docs/server.md");
  ASSERT_TRUE(file);
  std::vector<std::string> rows;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("| `--", 0) == 0) rows.push_back(line);
  }
  ASSERT_EQ(rows.size(), ConfigOptions().size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const OptionSpec& option = ConfigOptions()[i];
    const std::string fallback = option.Default().empty() ? "" : "`" + option.Default() + "`";
    EXPECT_EQ(rows[i],
              fmt::format("| `{} {}` | `{}` | `{}` | {} | {} |", option.Flag(), option.metavar,
                          option.YamlKey(), option.Environment(), fallback, option.help));
  }
}

}  // namespace
}  // namespace dimmer
