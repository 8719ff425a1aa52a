// Random damage to good files: every outcome is fine but a crash, a hang or a huge allocation.
// Seeded, so a failure repeats; worth most under ASan and UBSan.
#include <gtest/gtest.h>

#include <functional>

#include "engine/package/json_fields.h"
#include "engine/package/repository.h"
#include "tests/package/test_files.h"

namespace dimmer {
namespace {

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  size_t Below(size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  // One to four small changes. Digits become other digits often: sizes and offsets are what a
  // reader trusts.
  std::string Mutate(std::string bytes) {
    for (size_t n = 1 + Below(4); n > 0; --n) {
      const size_t at = Below(bytes.size());
      switch (Below(7)) {
        case 0:
          if (!bytes.empty()) bytes[at] = static_cast<char>(random_());
          break;
        case 1:
          if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(8)));
          break;
        case 2:
          bytes.resize(at);
          break;
        case 3:
          bytes.insert(at, bytes.substr(Below(bytes.size()), 1 + Below(40)));
          break;
        case 4:
          bytes.erase(at, 1 + Below(8));
          break;
        case 5:
          bytes.insert(at, kTokens[Below(std::size(kTokens))]);
          break;
        default:
          ReplaceDigit(bytes, at);
      }
    }
    return bytes;
  }

 private:
  static constexpr const char* kTokens[] = {"{",
                                            "}",
                                            "[",
                                            "]",
                                            ",",
                                            ":",
                                            "\"",
                                            "null",
                                            "-1",
                                            "9",
                                            "99999999999999999999",
                                            "1e308",
                                            "18446744073709551615",
                                            "9223372036854775807",
                                            "4294967296",
                                            "\"F64\"",
                                            "\"a\":",
                                            "\xff"};

  void ReplaceDigit(std::string& bytes, size_t from) {
    const size_t at = bytes.find_first_of("0123456789", from);
    if (at != std::string::npos) bytes[at] = static_cast<char>('0' + Below(10));
  }

  std::mt19937 random_;
};

TEST(FuzzTest, DamagedSafetensors) {
  const TempDirectory directory;
  WriteTinyCheckpoint(directory.path());
  const std::string good = ReadBytes(directory / "model.safetensors");
  Mutator mutator(1);
  size_t opened = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = mutator.Mutate(good);
    if (i % 2 == 0 && bytes.size() >= 8) {
      // Half of them with a length that fits, or nearly every one would stop there.
      const size_t end = bytes.rfind('}');
      const uint64_t length = end == std::string::npos || end < 8 ? bytes.size() - 8 : end - 7;
      for (int b = 0; b < 8; ++b) bytes[b] = static_cast<char>(length >> (8 * b));
    }
    WriteBytes(directory / "x", bytes);
    const auto file = SafetensorsFile::Open(directory / "x");
    if (!file.ok()) {
      EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << file.status();
      continue;
    }
    ++opened;
    for (const auto& [name, view] : (*file)->tensors()) {
      ASSERT_LE(view.data.size(), bytes.size());
      std::vector<float> values(static_cast<size_t>(view.elements()));
      (void)ReadFloats(view, values);
    }
  }
  EXPECT_GT(opened, 10);  // else the changes are too wild to test what lies behind the header
}

TEST(FuzzTest, DamagedSpecs) {
  const TempDirectory directory;
  WriteTinyPackage(directory.path());
  const std::string good = ReadBytes(directory / "dimmer.json");
  Mutator mutator(2);
  size_t parsed = 0;
  for (int i = 0; i < 4000; ++i) {
    const auto json = ParseJson(mutator.Mutate(good), "f");
    if (!json.ok()) continue;
    const auto spec = MoeSpecFromJson(*json, "f");
    if (!spec.ok()) continue;
    ++parsed;
    const auto again = MoeSpecFromJson(ToJson(*spec), "f");  // what is accepted round-trips
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(ToJson(*again), ToJson(*spec));
  }
  EXPECT_GT(parsed, 10);
}

TEST(FuzzTest, DamagedPackages) {
  const TempDirectory directory;
  WriteTinyPackage(directory.path());
  const char* const names[] = {"config.json", "dimmer.json", "model.safetensors",
                               "routers.safetensors", "vocab.txt"};
  Mutator mutator(3);
  for (int i = 0; i < 500; ++i) {
    const std::string path = directory / names[mutator.Below(std::size(names))];
    const std::string good = ReadBytes(path);
    const std::string bad = mutator.Mutate(good);
    WriteBytes(path, bad);
    const auto package = Package::Open(directory.path());
    const bool checked = !path.ends_with("dimmer.json");  // by its checksum
    if (checked && bad != good) {
      EXPECT_FALSE(package.ok()) << path;
    }
    WriteBytes(path, good);
  }
  EXPECT_TRUE(Package::Open(directory.path()).ok());
}

TEST(FuzzTest, DamagedServingConfigs) {
  const TempDirectory directory;
  std::filesystem::create_directories(directory / "m/1");
  const std::string good =
      "default_tau: 0.1\nmin_tau: 0.0\nmax_tau: 0.5\nmax_batch_tokens: 2048\nmax_batch_size: 8\n";
  Mutator mutator(4);
  size_t usable = 0;
  for (int i = 0; i < 1000; ++i) {
    WriteBytes(directory / "m/config.yaml", mutator.Mutate(good));
    const auto entries = ScanRepository(directory.path());
    ASSERT_TRUE(entries.ok());
    ASSERT_EQ(entries->size(), 1);
    usable += entries->front().status.ok() ? 1 : 0;
  }
  EXPECT_GT(usable, 10);
}

}  // namespace
}  // namespace dimmer
