#include "engine/tau_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>

#include "engine/package/json_fields.h"
#include "tests/models/test_packages.h"

namespace {

std::atomic<bool> disk_is_full = false;

struct FullDisk {
  FullDisk() { disk_is_full = true; }
  ~FullDisk() { disk_is_full = false; }
};

}  // namespace

// A program's own definition goes before that of the C library.
extern "C" int fsync(int fd) {
  if (!disk_is_full) return fdatasync(fd);
  errno = ENOSPC;
  return -1;
}

namespace dimmer {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
namespace fs = std::filesystem;

TauRecords Records() {
  TauRecord plain{.revision = 7};
  plain.permanent.default_tau = 0.1;
  plain.permanent.layers[{2, Module::kO}] = 0.30000000000000004;
  TauRecord expiring{.permanent = {.max_tau = 0.9},
                     .temporary = {.default_tau = 0.5, .min_tau = 0.0},
                     .expires = std::chrono::system_clock::time_point(milliseconds(1234567890123)),
                     .revision = 2};
  expiring.temporary.layers[{0, Module::kFfn}] = 1;
  return {{"a", plain}, {"b \"quoted\"", expiring}, {"c", {}}};
}

MATCHER_P(Holds, records, "") { return arg.ok() && *arg == records; }

TEST(TauStoreTest, JsonKeepsEverything) {
  const auto read = TauRecordsFromJson(TauRecordsToJson(Records()), "tau.json");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, Records());
}

TEST(TauStoreTest, NamesWhatIsWrong) {
  struct Case {
    const char* text;
    const char* message;
  };
  for (const Case& c : std::initializer_list<Case>{
           {"", "tau.json"},
           {"[]", "tau.json"},
           {"{}", "format"},
           {R"({"format": 0, "models": {}})", "format"},
           {R"({"format": "2", "models": {}})", "format"},
           {R"({"format": 1})", "models"},
           {R"({"format": 1, "models": {"m": 3}})", "m"},
           {R"({"format": 1, "models": {"m": {}}})", "revision"},
           {R"({"format": 1, "models": {"m": {"revision": 0}}})", "revision"},
           {R"({"format": 1, "models": {"m": {"revision": 1, "default_tau": 2}}})", "default_tau"},
           {R"({"format": 1, "models": {"m": {"revision": 1, "min_tau": "x"}}})", "min_tau"},
           {R"({"format": 1, "models": {"m": {"revision": 1, "layers": [{"layer": -1}]}}})",
            "layer"},
           {R"({"format": 1, "models": {"m": {"revision": 1,
               "layers": [{"layer": 1, "module": "x", "tau": 0}]}}})",
            "module: found \"x\""},
           {R"({"format": 1, "models": {"m": {"revision": 1, "temporary": {}}}})",
            "expires_unix_ms"}}) {
    const auto read = TauRecordsFromJson(c.text, "tau.json");
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << c.text;
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(c.message));
  }
}

TEST(TauStoreTest, AFileSurvives) {
  const TempDirectory temp;
  const std::string directory = temp.Sub("made/for/it");
  EXPECT_THAT(TauStore(directory).Read(), Holds(TauRecords()));
  ASSERT_TRUE(TauStore(directory).Write(Records()).ok());
  EXPECT_THAT(TauStore(directory).Read(), Holds(Records()));
}

TEST(TauStoreTest, WithoutADirectoryNothingIsKept) {
  const TauStore store("");
  EXPECT_TRUE(store.Write(Records()).ok());
  EXPECT_THAT(store.Read(), Holds(TauRecords()));
}

TEST(TauStoreTest, ACorruptFileIsKeptAside) {
  const TempDirectory temp;
  const TauStore store(temp.path());
  std::ofstream(temp.Sub("tau.json")) << "{\"format\": 1, \"mod";
  EXPECT_THAT(store.Read(), Holds(TauRecords()));
  EXPECT_FALSE(fs::exists(temp.Sub("tau.json")));
  EXPECT_EQ(*ReadTextFile(temp.Sub("tau.json.corrupt")), "{\"format\": 1, \"mod");
  EXPECT_TRUE(store.Write(Records()).ok());
  EXPECT_THAT(store.Read(), Holds(Records()));
}

TEST(TauStoreTest, CorruptFilesDoNotReplaceEachOther) {
  const TempDirectory temp;
  const TauStore store(temp.path());
  for (const char* text : {"first", "second", "third"}) {
    std::ofstream(temp.Sub("tau.json")) << text;
    EXPECT_THAT(store.Read(), Holds(TauRecords()));
  }
  EXPECT_EQ(*ReadTextFile(temp.Sub("tau.json.corrupt")), "first");
  EXPECT_EQ(*ReadTextFile(temp.Sub("tau.json.corrupt.1")), "second");
  EXPECT_EQ(*ReadTextFile(temp.Sub("tau.json.corrupt.2")), "third");
}

TEST(TauStoreTest, ANewerFormatIsLeftWhereItIs) {
  const TempDirectory temp;
  const std::string text = R"({"format": 2, "models": {"m": {"max_tau": 0.1}}})";
  std::ofstream(temp.Sub("tau.json")) << text;
  const auto read = TauStore(temp.path()).Read();
  EXPECT_EQ(read.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(read.status().message()),
              HasSubstr("tau.json: format: found 2, expected 1"));
  EXPECT_EQ(*ReadTextFile(temp.Sub("tau.json")), text);
}

TEST(TauStoreTest, AFileThatCannotBeReadIsLeftWhereItIs) {
  const TempDirectory temp;
  // For root, whom permissions do not stop, a folder stands for all that can't be read.
  fs::create_directories(temp.Sub("tau.json/occupied"));
  const auto read = TauStore(temp.path()).Read();
  EXPECT_FALSE(read.ok());
  EXPECT_THAT(std::string(read.status().message()), HasSubstr(temp.Sub("tau.json")));
  EXPECT_TRUE(fs::exists(temp.Sub("tau.json/occupied")));
  EXPECT_FALSE(fs::exists(temp.Sub("tau.json.corrupt")));
}

TEST(TauStoreTest, AFailedWriteIsAnError) {
  const TempDirectory temp;
  std::ofstream(temp.Sub("file")) << "not a directory";
  EXPECT_EQ(TauStore(temp.Sub("file")).Write(Records()).code(), absl::StatusCode::kInternal);
}

TEST(TauStoreTest, AFullDiskIsTheServersOwnTrouble) {
  const TempDirectory temp;
  const TauStore store(temp.path());
  ASSERT_TRUE(store.Write(Records()).ok());
  absl::Status status;
  {
    const FullDisk full;
    status = store.Write({});
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << "no queue is full";
  EXPECT_THAT(std::string(status.message()), HasSubstr("No space left on device"));
  EXPECT_THAT(store.Read(), Holds(Records()));
}

}  // namespace
}  // namespace dimmer
