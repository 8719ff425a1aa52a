// The importers' arithmetic and refusals; tests/python/test_import.py has the real files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/package/json_fields.h"
#include "engine/package/safetensors.h"
#include "engine/util/status.h"
#include "tests/package/test_files.h"
#include "training/import_gpt.h"
#include "training/import_llama2c.h"
#include "training/new_folder.h"
#include "training/package_target.h"

namespace dimmer {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(ImportLlama2c, RowsOfAHeadGoFromPairsToHalves) {
  // Two heads of four rows, two columns; row r holds r and r + 100.
  std::vector<float> weights;
  for (int row = 0; row < 8; ++row) {
    weights.push_back(static_cast<float>(row));
    weights.push_back(static_cast<float>(row + 100));
  }
  EXPECT_THAT(PermuteForRotateHalf(weights, 2, 4, 2),
              ElementsAre(0, 100, 2, 102, 1, 101, 3, 103, 4, 104, 6, 106, 5, 105, 7, 107));
}

// 16 wide, 2 layers, 4 heads in 2 groups, 10 tokens: by hand 160 + 2 * (16 + 256 + 128 + 128 + 256
// + 16 + 3 * 16 * 24) + 16 + 8 * 4 floats.
constexpr int32_t kShape[7] = {16, 24, 2, 4, 2, 10, 8};
constexpr uint64_t kFloats = 160 + 2 * (800 + 1152) + 16 + 32;

TEST(ImportLlama2c, ReadsTheShape) {
  const auto shape = ReadLlama2cShape(kShape, 28 + 4 * kFloats, "m.bin");
  ASSERT_TRUE(shape.ok()) << shape.status();
  EXPECT_TRUE(shape->shared_head);
  EXPECT_EQ(shape->kv_width(), 8);
  int32_t own_head[7];
  std::copy(std::begin(kShape), std::end(kShape), own_head);
  own_head[5] = -10;
  const auto with_head = ReadLlama2cShape(own_head, 28 + 4 * (kFloats + 160), "m.bin");
  ASSERT_TRUE(with_head.ok()) << with_head.status();
  EXPECT_FALSE(with_head->shared_head);
  EXPECT_EQ(with_head->vocab, 10);
}

TEST(ImportLlama2c, RefusesShapesThatDoNotFit) {
  const struct {
    size_t field;
    int32_t value;
    const char* expected;
  } cases[] = {{0, 0, "m.bin: dim: found 0, expected 1 to"},
               {0, 18, "dim: found 18 for 4 heads, expected heads of one even width"},
               {0, 12, "dim: found 12 for 4 heads, expected heads of one even width"},
               {1, -3, "hidden_dim: found -3"},
               {2, 1 << 30, "n_layers: found 1073741824"},
               {4, 3, "n_kv_heads: found 3, expected a divisor of 4"},
               {5, INT32_MIN, "vocab_size: found -2147483648"},
               {6, 9, "found 16476 bytes, expected 16492 for these numbers"},
               {0, 0x616b3432, "found a llama2.c file of version 1 or later"}};
  for (const auto& c : cases) {
    int32_t header[7];
    std::copy(std::begin(kShape), std::end(kShape), header);
    header[c.field] = c.value;
    EXPECT_THAT(std::string(ReadLlama2cShape(header, 28 + 4 * kFloats, "m.bin").status().message()),
                HasSubstr(c.expected));
  }
}

class ImportGptTest : public testing::Test {
 protected:
  void SetUp() override {
    config_ = {{"n_layer", 1}, {"n_head", 1}, {"n_embd", 2}, {"vocab_size", 3}, {"block_size", 4}};
    const std::string h = "transformer.h.0.";
    shapes_ = {{"transformer.wte.weight", {3, 2}}, {"transformer.wpe.weight", {4, 2}},
               {h + "ln_1.weight", {2}},           {h + "attn.c_attn.weight", {6, 2}},
               {h + "attn.c_proj.weight", {2, 2}}, {h + "attn.c_proj.bias", {2}},
               {h + "ln_2.weight", {2}},           {h + "mlp.c_fc.weight", {5, 2}},
               {h + "mlp.c_proj.weight", {2, 5}},  {"transformer.ln_f.weight", {2}},
               {h + "attn.bias", {1, 1, 4, 4}}};
  }

  absl::Status Import() {
    const std::string from = directory_ / "from";
    std::filesystem::create_directories(from);
    WriteBytes(from + "/config.json", config_.dump());
    std::vector<TensorToWrite> tensors;
    std::vector<std::vector<float>> values;
    values.reserve(shapes_.size());
    for (const auto& [name, shape] : shapes_) {
      int64_t count = 1;
      for (const int64_t n : shape) count *= n;
      values.push_back(Numbers(static_cast<size_t>(count), 1));
      tensors.push_back(
          {.name = name, .dtype = DType::kF32, .shape = shape, .values = values.back()});
    }
    EXPECT_TRUE(WriteSafetensors(from + "/model.safetensors", tensors, {}).ok());
    return ImportGpt(from, directory_ / "to");
  }
  std::vector<float> Imported(const std::string& name) {
    const auto file = SafetensorsFile::Open(directory_ / "to/model.safetensors");
    EXPECT_TRUE(file.ok()) << file.status();
    const TensorView* tensor = (*file)->Find(name);
    EXPECT_NE(tensor, nullptr) << name;
    std::vector<float> values(static_cast<size_t>(tensor->elements()));
    EXPECT_TRUE(ReadFloats(*tensor, values).ok());
    return values;
  }

  json config_;
  std::map<std::string, std::vector<int64_t>> shapes_;
  TempDirectory directory_;
};

TEST_F(ImportGptTest, TransposesAndFillsIn) {
  const absl::Status status = Import();
  ASSERT_TRUE(status.ok()) << status;
  const auto v = Numbers(10, 1);
  EXPECT_THAT(Imported("transformer.h.0.mlp.c_fc.weight"),  // [5, 2] to [2, 5]
              ElementsAre(v[0], v[2], v[4], v[6], v[8], v[1], v[3], v[5], v[7], v[9]));
  EXPECT_THAT(Imported("transformer.h.0.attn.c_attn.bias"), ElementsAre(0, 0, 0, 0, 0, 0));
  EXPECT_THAT(Imported("transformer.h.0.attn.c_proj.bias"), ElementsAre(v[0], v[1]));
  EXPECT_THAT(Imported("transformer.ln_f.bias"), ElementsAre(0, 0));
  const json config = json::parse(ReadBytes(directory_ / "to/config.json"));
  EXPECT_EQ(config["n_inner"], 5);
  EXPECT_EQ(config["n_positions"], 4);
  EXPECT_EQ(config["tie_word_embeddings"], true);
  EXPECT_EQ(config["architectures"], json::array({"GPT2LMHeadModel"}));
}

TEST_F(ImportGptTest, AHeadOfItsOwnIsNotTied) {
  shapes_["lm_head.weight"] = {3, 2};
  ASSERT_TRUE(Import().ok());
  EXPECT_EQ(json::parse(ReadBytes(directory_ / "to/config.json"))["tie_word_embeddings"], false);
  EXPECT_EQ(Imported("lm_head.weight"), Numbers(6, 1));
}

TEST_F(ImportGptTest, RefusesByTensorAndKey) {
  const auto shapes = shapes_;
  const std::string h = "transformer.h.0.";
  shapes_[h + "attn.c_attn.weight"] = {2, 6};  // already Hugging Face's
  EXPECT_THAT(std::string(Import().message()),
              HasSubstr("model.safetensors: transformer.h.0.attn.c_attn.weight: found [2, 6], "
                        "expected [6, 2]"));
  shapes_ = shapes;
  shapes_.erase(h + "mlp.c_proj.weight");
  EXPECT_THAT(std::string(Import().message()), HasSubstr("c_proj.weight: found nothing, expected"));
  shapes_ = shapes;
  shapes_.erase(h + "mlp.c_fc.weight");
  EXPECT_THAT(std::string(Import().message()), HasSubstr("found nothing, expected [d_ff, 2]"));
  shapes_ = shapes;
  shapes_["transformer.h.1.ln_1.weight"] = {2};
  EXPECT_THAT(std::string(Import().message()),
              HasSubstr("transformer.h.1.ln_1.weight: found a tensor [2], expected none"));
  shapes_ = shapes;
  config_["n_head"] = 3;
  EXPECT_THAT(std::string(Import().message()), HasSubstr("n_embd: found 2, expected a multiple"));
  config_.erase("block_size");
  EXPECT_THAT(std::string(Import().message()), HasSubstr("config.json: block_size: found nothing"));
  EXPECT_FALSE(std::filesystem::exists(directory_ / "to"));
}

TEST(NewFolder, AppearsWholeOrNotAtAll) {
  const TempDirectory directory;
  const std::string to = directory / "a/b";
  const auto fail = [](const std::string& folder) {
    WriteBytes(folder + "/half", "x");
    return absl::InternalError("stopped");
  };
  EXPECT_EQ(Message(WriteNewFolder(to, fail)), "stopped");
  EXPECT_TRUE(!std::filesystem::exists(directory / "a") ||
              std::filesystem::is_empty(directory / "a"));
  const auto write = [](const std::string& folder) {
    WriteBytes(folder + "/whole", "x");
    return absl::OkStatus();
  };
  // Of a process of the same id that was killed, as in a container.
  const std::filesystem::path stale = PartialPath(PackageTarget(to));
  std::filesystem::create_directories(stale);
  WriteBytes((stale / "other").string(), "x");
  ASSERT_TRUE(WriteNewFolder(to, write).ok());
  EXPECT_EQ(ReadBytes(to + "/whole"), "x");
  EXPECT_FALSE(std::filesystem::exists(to + "/other"));
  EXPECT_THAT(std::string(WriteNewFolder(to, write).message()), HasSubstr("holds files"));
}

}  // namespace
}  // namespace dimmer
