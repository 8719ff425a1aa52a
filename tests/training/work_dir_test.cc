#include "training/work_dir.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/package/json_fields.h"
#include "engine/util/float_formats.h"
#include "engine/util/status.h"
#include "tests/models/test_packages.h"
#include "training/bert_shape.h"
#include "training/fingerprint.h"

namespace dimmer {
namespace {

class StageDirTest : public testing::Test {
 protected:
  StageDir Open() {
    auto stage = StageDir::Open(directory_.path(), "split");
    EXPECT_TRUE(stage.ok()) << stage.status();
    return *std::move(stage);
  }
  const TempDirectory directory_;
};

TEST_F(StageDirTest, IsDoneForItsFingerprintOnly) {
  const StageDir stage = Open();
  EXPECT_FALSE(stage.Done("f1").has_value());
  ASSERT_TRUE(WriteTextFile(stage.Path("out.txt"), "result").ok());
  ASSERT_TRUE(stage.MarkDone("f1", {"out.txt"}, {{"x", 1}}).ok());
  ASSERT_TRUE(stage.Done("f1").has_value());
  EXPECT_EQ(stage.Done("f1")->at("x"), 1);
  EXPECT_FALSE(stage.Done("f2").has_value());
}

TEST_F(StageDirTest, IsNotDoneWithADamagedOrMissingFile) {
  const StageDir stage = Open();
  ASSERT_TRUE(WriteTextFile(stage.Path("out.txt"), "result").ok());
  ASSERT_TRUE(stage.MarkDone("f1", {"out.txt"}, {}).ok());
  ASSERT_TRUE(WriteTextFile(stage.Path("out.txt"), "resulT").ok());
  EXPECT_FALSE(stage.Done("f1").has_value());
  std::filesystem::remove(stage.Path("out.txt"));
  EXPECT_FALSE(stage.Done("f1").has_value());
}

TEST_F(StageDirTest, IsNotDoneWithABrokenMarker) {
  const StageDir stage = Open();
  for (const char* text : {"", "{", "[]", "{\"fingerprint\": 3}", "{\"fingerprint\": \"f1\"}",
                           "{\"fingerprint\": \"f1\", \"files\": 1, \"report\": 2}"}) {
    ASSERT_TRUE(WriteTextFile(stage.Path("done.json"), text).ok());
    EXPECT_FALSE(stage.Done("f1").has_value()) << text;
  }
}

TEST_F(StageDirTest, NamesAFolderThatCannotBeMade) {
  ASSERT_TRUE(WriteTextFile(directory_.Sub("file"), "").ok());
  const auto stage = StageDir::Open(directory_.Sub("file"), "split");
  ASSERT_FALSE(stage.ok());
  EXPECT_THAT(std::string(Message(stage.status())), testing::HasSubstr("file/split"));
}

TEST(WorkLockTest, IsForOneAtATimeAndCleansUp) {
  const TempDirectory directory;
  const std::string work = directory.Sub("work");
  std::filesystem::create_directories(work + "/split");
  for (const char* file : {"/split/a.json.tmp.12.0", "/split/a.json", "/mine.tmp.1.0"}) {
    ASSERT_TRUE(WriteTextFile(work + file, "x").ok());
  }
  {
    const auto lock = WorkLock::Acquire(work);
    ASSERT_TRUE(lock.ok()) << lock.status();
    EXPECT_FALSE(std::filesystem::exists(work + "/split/a.json.tmp.12.0"));
    EXPECT_TRUE(std::filesystem::exists(work + "/split/a.json"));
    EXPECT_TRUE(std::filesystem::exists(work + "/mine.tmp.1.0"));
    const auto second = WorkLock::Acquire(work);
    ASSERT_FALSE(second.ok());
    EXPECT_THAT(std::string(Message(second.status())), testing::HasSubstr("in use by another"));
  }
  EXPECT_TRUE(WorkLock::Acquire(work).ok());
  ASSERT_TRUE(WriteTextFile(directory.Sub("file"), "").ok());
  EXPECT_THAT(std::string(Message(WorkLock::Acquire(directory.Sub("file")).status())),
              testing::HasSubstr("cannot use this folder"));
}

TEST(WeightsTest, ComeBackRoundedToTheirDtype) {
  const TempDirectory directory;
  const BertShape shape{.width = 4,
                        .layers = 1,
                        .heads = 2,
                        .hidden = 6,
                        .vocab = 7,
                        .positions = 5,
                        .types = 2,
                        .classes = 3};
  WeightMap weights;
  float value = 0.1F;
  for (const NamedShape& tensor : BertTensors(shape)) {
    size_t count = 1;
    for (int64_t size : tensor.shape) count *= size;
    for (size_t i = 0; i < count; ++i) weights[tensor.name].push_back(value += 0.01F);
  }
  for (DType dtype : {DType::kF32, DType::kF16}) {
    const std::string path = directory.Sub("w.safetensors");
    ASSERT_TRUE(SaveWeights(path, LayoutOf(shape), weights, dtype).ok());
    const auto loaded = LoadWeights(path, LayoutOf(shape));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    for (const auto& [name, values] : weights) {
      for (size_t i = 0; i < values.size(); ++i) {
        const float want = dtype == DType::kF32 ? values[i] : HalfToFloat(FloatToHalf(values[i]));
        ASSERT_EQ(loaded->at(name)[i], want);
      }
    }
  }
  BertShape other = shape;
  other.hidden = 8;
  const auto wrong = LoadWeights(directory.Sub("w.safetensors"), LayoutOf(other));
  EXPECT_THAT(std::string(Message(wrong.status())), testing::HasSubstr("intermediate"));
}

TEST(FingerprintTest, TellsEveryAdditionApart) {
  const auto of = [](auto... parts) {
    Fingerprint fingerprint("test/1");
    (fingerprint.Add(parts), ...);
    return fingerprint.Hex();
  };
  using std::string_view;
  EXPECT_EQ(of(string_view("ab")), of(string_view("ab")));
  EXPECT_NE(of(string_view("ab")), of(string_view("a"), string_view("b")));
  EXPECT_NE(of(uint64_t{1}), of(uint64_t{2}));
  EXPECT_NE(of(uint64_t{1}, uint64_t{2}), of(uint64_t{2}, uint64_t{1}));
  EXPECT_NE(of(1.0), of(-1.0));
  std::vector<Example> examples = {{{1, 2}, {0, 0}, 1}};
  const std::string before = of(std::span<const Example>(examples));
  examples[0].type_ids[1] = 1;
  EXPECT_NE(of(std::span<const Example>(examples)), before);
  EXPECT_EQ(before.size(), 32);
}

}  // namespace
}  // namespace dimmer
