#include "engine/package/repository.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/package/test_files.h"

namespace dimmer {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

class RepositoryTest : public testing::Test {
 protected:
  void Model(const std::string& name, const std::string& version, const std::string& yaml = "") {
    fs::create_directories(root_ / (name + "/" + version));
    if (!yaml.empty()) WriteBytes(root_ / (name + "/config.yaml"), yaml);
  }
  std::vector<RepositoryEntry> Scan() {
    auto entries = ScanRepository(root_.path());
    EXPECT_TRUE(entries.ok()) << entries.status();
    return entries.ok() ? *std::move(entries) : std::vector<RepositoryEntry>();
  }
  TempDirectory root_;
};

TEST_F(RepositoryTest, ListsTheHighestVersionOfEveryModel) {
  Model("b", "2");
  Model("b", "10");
  Model("b", "9");
  Model("b", "draft");
  Model("b", "-11");
  Model("b", "011");
  Model("b", "12x");
  Model("b", "99999999999999999999");  // more than 64 bits: no version
  WriteBytes(root_ / "b/11", "a file, not a version");
  Model("a", "1");
  Model(".git", "1");
  WriteBytes(root_ / "README.md", "");
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 2);
  EXPECT_EQ(entries[0].model, "a");
  EXPECT_EQ(entries[1].model, "b");
  EXPECT_EQ(entries[1].version, "10");
  EXPECT_EQ(entries[1].directory, root_ / "b/10");
  EXPECT_TRUE(entries[1].status.ok());
  EXPECT_FALSE(entries[1].serving.default_tau.has_value());
  EXPECT_EQ(entries[1].serving.max_batch_tokens, 4096);
}

TEST_F(RepositoryTest, FollowsLinks) {
  const TempDirectory elsewhere;
  fs::create_directories(elsewhere / "v");
  fs::create_directories(root_ / "m");
  fs::create_directory_symlink(elsewhere / "v", root_ / "m/3");
  fs::create_directory_symlink(root_ / "m", root_ / "alias");
  fs::create_directory_symlink(root_ / "nothing", root_ / "dangling");
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 2);
  EXPECT_EQ(entries[0].model, "alias");
  EXPECT_EQ(entries[0].version, "3");
  EXPECT_TRUE(entries[1].status.ok());
}

TEST_F(RepositoryTest, ANameThatIsNotUtf8IsListedEscaped) {
  Model("caf\xe9\x01", "1");
  Model("caf\xc3\xa9", "1");
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 2);
  EXPECT_EQ(entries[0].model, "caf\\xe9\\x01");
  EXPECT_EQ(entries[0].status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(entries[0].status.message()),
              HasSubstr("caf\\xe9\\x01: found a folder whose name is not UTF-8"));
  EXPECT_EQ(entries[1].model, "caf\xc3\xa9");
  EXPECT_TRUE(entries[1].status.ok()) << entries[1].status;
}

TEST_F(RepositoryTest, ReadsTheServingConfig) {
  Model("m", "1",
        "# how it is served\ndefault_tau: 0.25\nmin_tau: 0.1\nmax_tau: 1\nmax_batch_tokens: 100\n"
        "max_batch_size: 3\nmax_sequence_tokens: 77\nkv_cache_tokens: 4096\n");
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 1);
  ASSERT_TRUE(entries[0].status.ok()) << entries[0].status;
  const ServingConfig& serving = entries[0].serving;
  EXPECT_EQ(serving.default_tau, 0.25);
  EXPECT_EQ(serving.min_tau, 0.1);
  EXPECT_EQ(serving.max_tau, 1);
  EXPECT_EQ(serving.max_batch_tokens, 100);
  EXPECT_EQ(serving.max_batch_size, 3);
  EXPECT_EQ(serving.max_sequence_tokens, 77);
  EXPECT_EQ(serving.kv_cache_tokens, 4096);
}

TEST_F(RepositoryTest, ABrokenEntryNamesFileAndLineAndHidesNoOther) {
  Model("good", "1");
  const struct {
    const char* yaml;
    const char* expected;
  } cases[] = {
      {"default_tau: 0.1\ndefault_tua: 0.2\n", "config.yaml:2: found unknown key default_tua"},
      {"default_tau: 0.1\ndefault_tau: 0.2\n", "config.yaml:2: default_tau: found it twice"},
      {"\n\nmax_tau: 2\n", "config.yaml:3: max_tau: found 2, expected a number in [0, 1]"},
      {"max_tau: .nan\n", "config.yaml:1: max_tau: found .nan"},
      {"max_tau: [1]\n", "config.yaml:1: max_tau: found"},
      {"max_tau:\n", "config.yaml:1: max_tau: found"},
      {"max_batch_size: 0\n", "config.yaml:1: max_batch_size: found 0, expected an integer in"},
      {"max_batch_size: 1.5\n", "max_batch_size: found 1.5"},
      {"max_batch_size: 99999999999999999999\n", "max_batch_size: found 99999999999999999999"},
      {"max_batch_tokens: -1\n", "max_batch_tokens: found -1"},
      {"min_tau: 0.5\nmax_tau: 0.4\n", "found min_tau 0.5 above max_tau 0.4"},
      {"max_tau: 0.4\ndefault_tau: 0.5\n", "default_tau: found 0.5"},
      {"- a\n", "expected keys and values"},
      {"just text\n", "expected keys and values"},
      {"a: [\n", "config.yaml:"},
      {"? [a]\n: 1\n", "config.yaml:1"},
      {"a: &x [*x]\n", "config.yaml:"},
  };
  for (const auto& c : cases) {
    Model("bad", "1", c.yaml);
    const auto entries = Scan();
    ASSERT_EQ(entries.size(), 2) << c.yaml;
    EXPECT_EQ(entries[0].status.code(), absl::StatusCode::kInvalidArgument) << c.yaml;
    EXPECT_THAT(std::string(entries[0].status.message()), HasSubstr(c.expected)) << c.yaml;
    EXPECT_TRUE(entries[1].status.ok());
  }
}

TEST_F(RepositoryTest, SurvivesDeepNestingAndAliases) {
  for (const std::string& yaml :
       {std::string(100'000, '['), std::string(100'000, '{'), "a: " + std::string(50'000, '-')}) {
    Model("bad", "1", yaml);
    ASSERT_EQ(Scan().size(), 1);
    EXPECT_FALSE(Scan()[0].status.ok());
  }
}

TEST_F(RepositoryTest, AModelWithoutVersionIsListedWithTheReason) {
  fs::create_directories(root_ / "empty");
  WriteBytes(root_ / "empty/config.yaml", "default_tau: 0.1\n");
  fs::create_directories(root_ / "odd/1");
  fs::create_directories(root_ / "odd/config.yaml");
  const auto entries = Scan();
  ASSERT_EQ(entries.size(), 2);
  EXPECT_EQ(entries[0].status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(entries[0].status.message()), HasSubstr("no version folder"));
  EXPECT_THAT(std::string(entries[1].status.message()), HasSubstr("found a directory"));
}

TEST_F(RepositoryTest, NeedsADirectory) {
  EXPECT_EQ(ScanRepository(root_ / "none").status().code(), absl::StatusCode::kNotFound);
  WriteBytes(root_ / "file", "");
  EXPECT_EQ(ScanRepository(root_ / "file").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Scan().empty());
}

}  // namespace
}  // namespace dimmer
