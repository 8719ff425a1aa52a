#include "engine/package/version_directory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace dimmer {
namespace {

namespace fs = std::filesystem;

TEST(VersionDirectoryTest, IsThePathItselfOrItsHighestNumber) {
  const fs::path root = fs::path(testing::TempDir()) / "version_directory";
  fs::remove_all(root);
  for (const char* name : {"2", "10", "0", "10a", "latest", "9999999999"}) {
    fs::create_directories(root / name);
  }
  EXPECT_EQ(VersionDirectory(root.string()), (root / "10").string());
  EXPECT_EQ(VersionDirectory((root / "latest").string()), (root / "latest").string());
  EXPECT_EQ(VersionDirectory((root / "absent").string()), (root / "absent").string());
  std::ofstream(root / "config.json") << "{}";
  EXPECT_EQ(VersionDirectory(root.string()), root.string());
  fs::remove_all(root);
}

}  // namespace
}  // namespace dimmer
