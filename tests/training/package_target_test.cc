#include "training/package_target.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"
#include "tests/models/test_packages.h"

namespace dimmer {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class PackageTargetTest : public testing::Test {
 protected:
  // A folder with one file in it.
  fs::path Folder(const std::string& name, const std::string& file, const std::string& text) {
    const fs::path folder = directory_.Sub(name);
    fs::create_directories(folder);
    EXPECT_TRUE(WriteTextFile(folder / file, text).ok());
    return folder;
  }
  const TempDirectory directory_;
};

TEST_F(PackageTargetTest, ReplacesAPackageAndNothingBesideIt) {
  const fs::path target = Folder("model/1", "dimmer.json", "older");
  const fs::path others[] = {Folder("model/1.old", "mine", "x"),
                             Folder("model/1.partial", "mine", "x")};
  const fs::path fresh = Folder("model/fresh", "dimmer.json", "newer");
  ASSERT_TRUE(ReplacePackage(fresh, target).ok());
  EXPECT_EQ(*ReadTextFile(target / "dimmer.json"), "newer");
  EXPECT_FALSE(fs::exists(fresh));
  for (const fs::path& other : others) EXPECT_TRUE(fs::exists(other / "mine")) << other;
}

TEST_F(PackageTargetTest, FillsAMissingOrEmptyFolder) {
  ASSERT_TRUE(ReplacePackage(Folder("a", "dimmer.json", "1"), directory_.Sub("new")).ok());
  EXPECT_TRUE(fs::exists(directory_.Sub("new/dimmer.json")));
  fs::create_directories(directory_.Sub("empty"));
  ASSERT_TRUE(ReplacePackage(Folder("b", "dimmer.json", "1"), directory_.Sub("empty")).ok());
  EXPECT_TRUE(fs::exists(directory_.Sub("empty/dimmer.json")));
}

TEST_F(PackageTargetTest, LeavesEverythingElseAlone) {
  const fs::path plain = Folder("plain", "config.json", "{}");
  const fs::path fresh = Folder("fresh", "dimmer.json", "1");
  const absl::Status status = ReplacePackage(fresh, plain);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("holds files and no dimmer.json"));
  EXPECT_TRUE(fs::exists(plain / "config.json"));
  EXPECT_TRUE(fs::exists(fresh / "dimmer.json"));
  const absl::Status file = CheckTarget(plain / "config.json/1");
  EXPECT_THAT(std::string(Message(file)), HasSubstr("config.json is not a folder"));
}

TEST_F(PackageTargetTest, RefusesOverlappingFolders) {
  fs::create_directories(directory_.Sub("base/x"));
  fs::create_directory_symlink(directory_.Sub("base"), directory_.Sub("link"));
  for (const char* to : {"base", "base/", "base/x/..", "base/x", "base/new/1", "link/1", "."}) {
    const absl::Status status = CheckApart(directory_.Sub(to), "--work", directory_.Sub("base"));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << to;
    EXPECT_THAT(std::string(Message(status)), HasSubstr("--work"));
  }
  for (const char* to : {"base2", "bas", "other/base"}) {
    EXPECT_TRUE(CheckApart(directory_.Sub(to), "--work", directory_.Sub("base")).ok()) << to;
  }
}

}  // namespace
}  // namespace dimmer
