#include "engine/package/atomic_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <charconv>

#include "engine/package/json_fields.h"
#include "tests/package/test_files.h"

namespace dimmer {
namespace {

namespace fs = std::filesystem;

// The number at the end of the name of the only temporary file in `folder`.
uint64_t SerialIn(const TempDirectory& folder) {
  const std::string name = fs::directory_iterator(folder.path())->path().filename().string();
  const std::string start = "file.tmp." + std::to_string(getpid()) + ".";
  EXPECT_EQ(name.substr(0, start.size()), start);
  uint64_t serial = 0;
  std::from_chars(name.data() + start.size(), name.data() + name.size(), serial);
  return serial;
}

TEST(AtomicFileTest, AppearsWholeOrNotAtAll) {
  const TempDirectory folder;
  const std::string path = folder / "file";
  {
    auto file = AtomicFile::Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(file->Write("abandoned", 9).ok());
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
  auto file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Write("whole", 5).ok());
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(*ReadTextFile(path), "whole");
}

TEST(AtomicFileTest, PassesOverWhatAKilledProcessOfTheSameIdLeft) {
  const TempDirectory folder;
  const std::string path = folder / "file";
  uint64_t serial = 0;
  {
    const auto file = AtomicFile::Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    serial = SerialIn(folder);
  }
  for (int i = 1; i <= 3; ++i) {
    WriteBytes(path + ".tmp." + std::to_string(getpid()) + "." + std::to_string(serial + i), "old");
  }
  auto file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Write("new", 3).ok());
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(*ReadTextFile(path), "new");
}

}  // namespace
}  // namespace dimmer
